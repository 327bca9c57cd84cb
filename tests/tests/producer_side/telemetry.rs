//! What producers and consumers tell of themselves: metrics that equal their counts, and traces that go from the one to the other.
//! Recorder and subscriber are those of the test's own thread, on which all of it runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use correio_consumer::{Context, Message as Received, Verdict};
use correio_lab::broker::{Login, for_each};
use correio_message::{Destination, Envelope, Exchange, Headers, Properties, Route, Value, header};
use correio_producer::{
    Address, Message, Outcome, Producer, ProducerSettings,
    metrics::{self, CONSUMER, Kind, PRODUCER},
};
use correio_tests::{
    consuming::{Running, Seen, consumer, message, producer, send, shared, short, until},
    queues::take_all,
    recorded::Recorded,
};
use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::{Dispatch, Instrument, Subscriber, level_filters::LevelFilter, subscriber::NoSubscriber};
use tracing_subscriber::layer::SubscriberExt;

const CLOSE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_metrics_are_those_that_are_listed_and_equal_what_was_counted() {
    for_each(async |node| {
        let recorded = Recorded::default();
        let _listening = recorded.listen();
        let queue = shared(node, "metrics").await;
        let origin = short(&queue);
        let address = Address::parse(&node.amqp_url(Login::Lab)).unwrap();
        let producer = Producer::connect(ProducerSettings::new(address, &origin).unwrap()).await.unwrap();
        let seen = Seen::default();
        let handler = {
            let seen = seen.clone();
            move |message: Received, context: Context| {
                seen.note_attempt(&message, &context);
                let attempt = context.attempt().get();
                async move {
                    match &message.payload[..] {
                        b"again" if attempt == 1 => Ok(Verdict::Retry),
                        b"fails" if attempt == 1 => Err("not yet"),
                        b"panics" if attempt == 1 => panic!("on purpose"),
                        b"parked" => Ok(Verdict::DeadLetter { reason: "as it says".to_owned() }),
                        b"dropped" => Ok(Verdict::Drop { reason: "as it says".to_owned() }),
                        _ => Ok(Verdict::Done),
                    }
                }
            }
        };
        let running = Running::start(consumer(node, &queue).on_any(handler));

        for payload in ["good", "again", "fails", "panics", "parked", "dropped", "good"] {
            assert!(producer.send(message(&queue, payload)).await.unwrap().is_confirmed());
        }
        let nobody = Destination::queue("nobody-lives-here").unwrap();
        assert!(matches!(producer.send(Message::new(nobody, "x")).await.unwrap(), Outcome::Unroutable { .. }));
        let nowhere = Route { exchange: short("no-such-exchange"), routing_key: short("x") };
        let lost = producer.send(Message::new(Destination::Route(nowhere), "x")).await.unwrap();
        assert!(matches!(lost, Outcome::Unroutable { .. }));
        producer.fire(message(&queue, "fired")).await.unwrap();
        running.until(|tally| (tally.handled, tally.dead, tally.dropped, tally.duplicates) == (5, 1, 1, 1)).await;
        let tally = running.stop().await.counts;
        let open = || recorded.gauge(metrics::CHANNELS_OPEN.name, &[(metrics::ORIGIN, &queue)]);
        until(|| open() == 1.0, || format!("{} open", open())).await;
        producer.close(CLOSE).await;

        // What is listed is what is registered, and is described so.
        let listed = || PRODUCER.iter().chain(CONSUMER);
        let word = |kind| match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let names: BTreeMap<_, _> = listed().map(|metric| (metric.name.to_owned(), word(metric.kind))).collect();
        assert_eq!(recorded.registered(), names);
        let texts: BTreeMap<_, _> = listed()
            .map(|metric| (metric.name.to_owned(), (word(metric.kind), Some(metric.unit), metric.text.to_owned())))
            .collect();
        assert_eq!(recorded.described(), texts);

        // Of the producer.
        let counts = producer.counts();
        let ours = (metrics::ORIGIN, queue.as_str());
        let sent = |outcome| recorded.counter(metrics::SENT.name, &[ours, (metrics::OUTCOME, outcome)]);
        assert_eq!(
            [sent("confirmed"), sent("unroutable"), sent("refused"), sent("unknown"), sent("handed-on")],
            [7, 2, 0, 0, 1]
        );
        assert_eq!([counts.confirmed, counts.unroutable, counts.fired], [7, 2, 1]);
        assert_eq!(recorded.counter(metrics::SENT.name, &[ours, (metrics::ERROR, "unroutable")]), 2);
        for (metric, count) in [
            (metrics::ACCEPTED, 9),
            (metrics::CHANNEL_FAILURES, counts.channels_lost),
            (metrics::RECONNECTS, counts.reconnected),
            (metrics::RESENT, counts.resent),
        ] {
            assert_eq!(recorded.counter(metric.name, &[ours]), count, "{}", metric.name);
        }
        assert!(counts.channels_lost > 0, "{counts:?}");
        let took = |outcome| recorded.histogram(metrics::SENDING.name, &[ours, (metrics::OUTCOME, outcome)]);
        assert_eq!([took("confirmed").len(), took("unroutable").len()], [7, 2]);
        assert!(took("confirmed").iter().all(|seconds| (0.0..60.0).contains(seconds) && *seconds > 0.0));
        for gauge in [metrics::CHANNELS, metrics::CHANNELS_OPEN, metrics::OUTSTANDING, metrics::BUFFER_USED] {
            let last = if gauge == metrics::CHANNELS { 1.0 } else { 0.0 };
            assert_eq!(recorded.gauge(gauge.name, &[ours]), last, "{}", gauge.name);
        }
        drop(producer);

        // Of the consumer, and of its producer of copies.
        let theirs = (metrics::QUEUE, queue.as_str());
        for (metric, count, told) in [
            (metrics::CONSUMED, tally.received, 11),
            (metrics::HANDLED, tally.handled, 5),
            (metrics::RETRIED, tally.retried, 3),
            (metrics::DEAD, tally.dead, 1),
            (metrics::DROPPED, tally.dropped, 1),
            (metrics::DUPLICATES, tally.duplicates, 1),
            (metrics::UNCONFIRMED_COPIES, tally.unconfirmed_copies, 0),
        ] {
            assert_eq!([recorded.counter(metric.name, &[theirs]), count], [told; 2], "{}", metric.name);
        }
        let ended =
            |outcome| recorded.histogram(metrics::PROCESSING.name, &[theirs, (metrics::OUTCOME, outcome)]).len();
        let ends = ["done", "retry", "failed", "panicked", "dead_letter", "drop", "timed_out"].map(ended);
        assert_eq!(ends, [5, 1, 1, 1, 1, 1, 0]);
        assert_eq!(seen.len(), ends.iter().sum::<usize>());
        assert_eq!(
            recorded.counter(metrics::SENT.name, &[(metrics::ORIGIN, "copies"), (metrics::OUTCOME, "confirmed")]),
            4
        );
        for gauge in [metrics::SUBSCRIBED, metrics::IN_FLIGHT, metrics::HELD, metrics::PARKED] {
            assert_eq!(recorded.gauge(gauge.name, &[theirs]), 0.0, "{}", gauge.name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_trace_goes_from_the_sender_to_the_handler_through_retries_into_the_dead_letter_and_the_answer() {
    for_each(async |node| {
        let exported = Exported::default();
        let _listening = tracing::subscriber::set_default(exported.subscriber(LevelFilter::DEBUG));
        let queue = shared(node, "traced").await;
        let producer = producer(node).await;
        let running = Running::start(consumer(node, &queue).on_any(|message: Received, context: Context| async move {
            match (&message.payload[..], context.attempt().get()) {
                (b"fails", 1) => Err("not yet"),
                (b"parked", _) => Ok(Verdict::DeadLetter { reason: "as it says".to_owned() }),
                _ => Ok(Verdict::Done),
            }
        }));
        let order = tracing::info_span!("order");
        let sending = async {
            send(&producer, &queue, ["fails", "parked"].map(str::to_owned)).await;
            producer.request(message(&queue, "asked"), Duration::from_secs(30)).await.unwrap();
        };
        sending.instrument(order).await;
        // From somebody else, whose context is none.
        let bad = Headers::from([(short(header::TRACEPARENT), Value::text("00-nonsense"))]);
        let route = Route { exchange: Exchange::Queue.name(), routing_key: short(&queue) };
        let foreign = Properties { headers: bad, message_id: Some(short("foreign")), ..Properties::default() };
        let foreign = Envelope { route, properties: foreign, body: "foreign".into() };
        assert!(producer.forward(foreign).await.unwrap().await.unwrap().is_confirmed());
        running.until(|tally| (tally.handled, tally.dead) == (3, 1)).await;
        running.stop().await;
        producer.close(CLOSE).await;

        let all = exported.all();
        let root = all.iter().find(|span| span.name == "order").expect("the sender's own span");
        let trace = root.span_context.trace_id();
        let of = |name: &str, id: &str| -> Vec<&SpanData> {
            let ours = |span: &&SpanData| span.name.starts_with(name) && said(span, "messaging.message.id") == id;
            all.iter().filter(ours).collect()
        };
        for (id, published, processed) in [("fails", 2, 2), ("parked", 2, 1), ("asked", 1, 1)] {
            let (publish, process) = (of("publish ", id), of("process ", id));
            assert_eq!((publish.len(), process.len()), (published, processed), "{id}");
            let first = publish.iter().find(|span| span.parent_span_id == root.span_context.span_id()).expect(id);
            for span in publish.iter().chain(&process) {
                assert_eq!(span.span_context.trace_id(), trace, "{id}: {}", span.name);
            }
            // Each attempt belongs to the sending, and so does each copy.
            for child in process.iter().chain(publish.iter().filter(|span| *span != first)) {
                assert_eq!(child.parent_span_id, first.span_context.span_id(), "{id}: {}", child.name);
                assert!(child.parent_span_is_remote);
            }
        }
        let publish = of("publish ", "fails")[0];
        assert_eq!(
            (publish.name.as_ref(), &publish.span_kind),
            (&*format!("publish correio.queue:{queue}"), &SpanKind::Producer)
        );
        for (attribute, value) in [
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", &format!("correio.queue:{queue}")),
            ("messaging.rabbitmq.destination.routing_key", &queue),
            ("messaging.message.body.size", "5"),
            ("correio.outcome", "confirmed"),
            ("correio.tries", "1"),
        ] {
            assert_eq!(said(publish, attribute), value, "{attribute}");
        }
        let [first, second] = of("process ", "fails")[..] else { panic!("two attempts") };
        assert_eq!((first.name.as_ref(), &first.span_kind), (&*format!("process {queue}"), &SpanKind::Consumer));
        assert_eq!([said(first, "correio.attempt"), said(second, "correio.attempt")], ["1", "2"]);
        assert_eq!([said(first, "error.type"), said(second, "error.type")], ["failed", ""]);
        assert!(matches!((&first.status, &second.status), (Status::Error { .. }, Status::Unset)));
        assert_eq!(said(first, "messaging.destination.name"), format!("correio.queue:{queue}"));
        let answers =
            all.iter().filter(|span| span.name == "publish correio.reply" && span.span_context.trace_id() == trace);
        assert_eq!(answers.count(), 1, "the answer belongs to its request");
        let [foreign] = of("process ", "foreign")[..] else { panic!("one attempt") };
        assert_ne!(foreign.span_context.trace_id(), trace);

        let [letter] = &take_all(node, &format!("{queue}.dead")).await[..] else { panic!("one letter") };
        let context = of("publish ", "parked").iter().find(|span| !span.parent_span_is_remote).map(|span| {
            let context = &span.span_context;
            format!("00-{}-{}-01", context.trace_id(), context.span_id())
        });
        assert_eq!(carried(letter), context);
    })
    .await;
}

#[tokio::test]
async fn where_no_span_of_ours_is_wanted_a_message_carries_its_senders_and_without_one_nothing() {
    for_each(async |node| {
        let exported = Exported::default();
        let queue = shared(node, "traced").await;
        let producer = producer(node).await;
        send(&producer, &queue, ["nobody listens".to_owned()]).await;
        let listening = tracing::subscriber::set_default(exported.subscriber(LevelFilter::INFO));
        send(&producer, &queue, ["no span".to_owned()]).await;
        send(&producer, &queue, ["within".to_owned()]).instrument(tracing::info_span!("order")).await;
        drop(listening);
        producer.close(CLOSE).await;
        let all = exported.all();
        let [order] = &all[..] else { panic!("{} spans", all.len()) };
        let context = &order.span_context;
        let within = format!("00-{}-{}-01", context.trace_id(), context.span_id());
        let contexts: Vec<_> = take_all(node, &queue).await.iter().map(carried).collect();
        assert_eq!(contexts, [None, None, Some(within)]);
    })
    .await;
}

/// The spans that have ended.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl Exported {
    fn subscriber(&self, level: LevelFilter) -> impl Subscriber + Send + Sync + use<> {
        let provider = SdkTracerProvider::builder().with_simple_exporter(self.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
        // With a single subscriber, `tracing` asks only that of the thread that meets a span first, for all threads: here that
        // may be a test without one. So there is a second.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::new()));
        tracing_subscriber::registry().with(layer).with(level)
    }

    fn all(&self) -> Vec<SpanData> {
        self.0.lock().unwrap().clone()
    }
}

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn said(span: &SpanData, attribute: &str) -> String {
    let said = span.attributes.iter().find(|said| said.key.as_str() == attribute);
    said.map(|said| said.value.to_string()).unwrap_or_default()
}

fn carried(envelope: &Envelope) -> Option<String> {
    let value = envelope.properties.headers.iter().find(|(name, _)| name.as_str() == header::TRACEPARENT)?;
    value.1.as_text().map(str::to_owned)
}
