//! Properties that no client library can read do not end the process that meets them: their messages are parked.

use std::collections::BTreeMap;

use correio_lab::broker::{Login, for_each};
use correio_message::{DeadLetter, DeadReason};
use correio_tests::{
    consuming::{Running, Seen, consumer, shared},
    queues::take_all,
    raw_amqp::{RawPublisher, long, nested, short},
};

/// What it is called, the routing key, flags and properties, and what its letter says.
type Unfit<'t> = (&'t str, &'t [u8], (u16, Vec<u8>), &'t str);

const HEADERS: u16 = 1 << 13;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;

#[tokio::test(flavor = "multi_thread")]
async fn headers_nested_thousands_of_levels_deep_and_texts_that_are_not_utf8_are_parked_and_their_neighbours_handled() {
    for_each(async |node| {
        let queue = shared(node, "unfit").await;
        let mut raw = RawPublisher::connect(&node.amqp_url(Login::Lab)).await;
        raw.bind(&queue, "amq.fanout").await;
        let wrong = b"\xff\xe2\x82 wrong";
        let named = long(&[&short(wrong), &b"V"[..]].concat());
        let to = queue.as_bytes();
        let unfit: [Unfit<'_>; 7] = [
            ("deep tables", to, (HEADERS, nested(20_000, b'F')), "nested more than 32 levels deep"),
            ("deep arrays", to, (HEADERS, nested(20_000, b'A')), "nested more than 32 levels deep"),
            ("a little too deep", to, (HEADERS, nested(32, b'F')), "nested more than 32 levels deep"),
            ("a name", to, (HEADERS, named), "its name of a header is not UTF-8"),
            ("a type", to, (TYPE, short(wrong)), "its type is not UTF-8"),
            ("an id", to, (MESSAGE_ID, short(wrong)), "its message_id is not UTF-8"),
            ("a routing key", wrong, (0, Vec::new()), "its routing key is not UTF-8"),
        ];
        for (what, routing_key, (flags, properties), _) in &unfit {
            let good = format!("before {what}");
            raw.publish("correio.queue", to, (MESSAGE_ID, &short(good.as_bytes())), good.as_bytes()).await;
            let exchange = if *routing_key == to { "correio.queue" } else { "amq.fanout" };
            raw.publish(exchange, routing_key, (*flags, properties), what.as_bytes()).await;
        }
        let deep_enough = nested(31, b'F');
        raw.publish("correio.queue", to, (HEADERS, &deep_enough), b"deep enough").await;

        let seen = Seen::default();
        let running = Running::start(consumer(node, &queue).on_any({
            let seen = seen.clone();
            move |message: correio_consumer::Message| {
                seen.note_text(String::from_utf8_lossy(&message.payload).into_owned());
                async { Ok::<_, String>(()) }
            }
        }));
        running.until(|tally| tally.dead + tally.handled == 15).await;
        let summary = running.stop().await;
        assert_eq!((summary.counts.dead, summary.counts.resubscribed), (7, 0), "{summary:?}");
        let mut expected: Vec<_> = unfit.iter().map(|(what, ..)| format!("before {what}")).collect();
        expected.push("deep enough".to_owned());
        expected.sort();
        assert_eq!(seen.sorted(), expected);
        let letters = take_all(node, &format!("{queue}.dead")).await;
        let said: BTreeMap<_, _> =
            letters.iter().map(|letter| (letter.body.to_vec(), DeadLetter::of(letter).expect("a letter"))).collect();
        for (what, _, _, why) in unfit {
            let letter = &said[what.as_bytes()];
            assert_eq!(letter.reason, DeadReason::Unreadable, "{what}");
            assert!(letter.error.contains(why), "{what}: {}", letter.error);
        }
        let left_out = &said[&b"deep tables"[..]].error;
        assert!(left_out.contains("its own 1 headers") && left_out.contains("left out"), "{left_out}");
    })
    .await;
}
