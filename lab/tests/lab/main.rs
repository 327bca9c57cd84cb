//! The lab's nodes, servers, proxies and lessons, killed and cut. One program, so that those that wait for a broker do so side by side.

mod broker_killed;
mod demo_broker_ended;
mod demo_stopped;
mod lessons_judged;
mod plain_client;
mod postgres_killed;
mod postgres_words;
mod program_killed;
mod proxy_faults;
mod small_disk_full;
