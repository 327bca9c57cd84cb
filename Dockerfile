# The three programs in one small image: producer, consumer, broker.  docker build -t correio .
# Both images can be replaced, for a mirror or a newer compiler:  --build-arg RUST=… --build-arg DEBIAN=…
ARG RUST=rust:1.95-slim-bookworm
ARG DEBIAN=debian:bookworm-slim

FROM ${RUST} AS build
WORKDIR /src
COPY . .
# The two caches keep downloaded and compiled dependencies between builds. Cargo tells a changed file by its time, and a
# file of an older checkout may be older than what the cache holds, so all of ours count as changed; dependencies do not.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} + && \
    CARGO_PROFILE_RELEASE_STRIP=symbols cargo build --release --locked \
        -p correio-producer -p correio-consumer -p correio-broker-config --bins && \
    mkdir /programs && cp target/release/producer target/release/consumer target/release/broker /programs/

FROM ${DEBIAN}
COPY --from=build /programs/ /usr/local/bin/
# A number, so that Kubernetes too can see that it is not root.
USER 10001:10001
CMD ["producer", "--help"]
