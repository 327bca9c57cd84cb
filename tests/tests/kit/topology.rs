//! The topology on a real broker: applied, checked, refused, and what the shipped users may do with it.

use std::time::Duration;

use correio_broker_config::{
    Address, ConnectError, ConnectionSettings, Connections, DeclareError, Finding, Item, LeasedChannel, Purpose,
    ReplyCause, Topology, WorkQueue, apply, check,
};
use correio_lab::broker::{Login, Node, for_each};
use correio_tests::{programs::Program, queues::fresh};
use lapin::{
    BasicProperties,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;

const STEP: Duration = Duration::from_secs(10);

fn address(node: &Node, user: &str) -> Address {
    // The shipped users' passwords are their names.
    Address::parse(&node.amqp_url(Login::Lab)).unwrap().with_user(user, user)
}

fn connect(node: &Node, user: &str) -> Connections {
    Connections::new(address(node, user), ConnectionSettings::new("tests", user, Purpose::Admin))
}

fn shared(name: &str) -> Topology {
    Topology::exchanges_only().with(&WorkQueue::shared(name).unwrap())
}

fn ordered(name: &str) -> Topology {
    Topology::exchanges_only().with(&WorkQueue::ordered(name).unwrap())
}

async fn findings(connections: &Connections, topology: &Topology) -> Vec<(String, Finding)> {
    let checked = check(connections, topology).await.unwrap();
    let visible = checked.into_iter().filter(|c| !matches!(c.item, Item::Binding(_) | Item::Policies));
    visible.map(|c| (c.item.to_string(), c.finding)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_definitions_are_the_shipped_topology() {
    for_each(async |node| {
        let operator = connect(node, "operator");
        for (item, finding) in findings(&operator, &Topology::shipped()).await {
            assert_eq!(finding, Finding::Same, "{item}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_twice_is_applying_once() {
    for_each(async |node| {
        let operator = connect(node, "operator");
        for topology in [shared(&fresh("shared")), ordered(&fresh("ordered"))] {
            for _ in 0..2 {
                apply(&operator, &topology).await.unwrap();
                node.note_declared();
                for (item, finding) in findings(&operator, &topology).await {
                    assert_eq!(finding, Finding::Same, "{item}");
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_is_missing_and_declares_nothing() {
    for_each(async |node| {
        let (operator, topology) = (connect(node, "operator"), shared(&fresh("missing")));
        for _ in 0..2 {
            for (item, finding) in findings(&operator, &topology).await {
                let expected = if item.starts_with("queue ") { Finding::Missing } else { Finding::Same };
                assert_eq!(finding, expected, "{item}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_named_with_the_argument_and_both_values() {
    for_each(async |node| {
        let (operator, name) = (connect(node, "operator"), fresh("differs"));
        let lease = operator.channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(7));
        declare(&lease, &name, arguments).await.unwrap();
        node.note_declared();
        lease.give_back().await.unwrap();

        let error = apply(&operator, &shared(&name)).await.unwrap_err();
        assert!(matches!(error, DeclareError::Differs { .. }), "{error}");
        let said = error.to_string();
        for part in [&*format!("queue {name}"), "x-d", "AMQP cannot change"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        let checked = findings(&operator, &shared(&name)).await;
        let (_, finding) = checked.iter().find(|(item, _)| *item == format!("queue {name}")).unwrap();
        assert!(matches!(finding, Finding::Differs { .. }), "{finding}");

        // The broker names one argument: with only that one different, both values are in its words.
        let orders = connect(node, "operator");
        let other = fresh("differs");
        apply(&orders, &shared(&other)).await.unwrap();
        node.note_declared();
        let said = apply(&orders, &ordered(&other)).await.unwrap_err().to_string();
        for part in ["x-single-active-consumer", "true", "none"] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_configure_a_check_says_so_and_an_apply_names_who_may() {
    for_each(async |node| {
        let consumer = connect(node, "consumer");
        let checked = findings(&consumer, &Topology::shipped()).await;
        let (_, orders) = checked.iter().find(|(item, _)| item == "queue orders").unwrap();
        assert!(matches!(orders, Finding::NotVisible { because } if because.contains("configure")), "{orders}");
        let error = apply(&consumer, &shared(&fresh("forbidden"))).await.unwrap_err();
        assert!(matches!(&error, DeclareError::Forbidden { user, .. } if user == "consumer"), "{error}");
        assert!(error.to_string().contains("operator"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_travels_work_queue_retry_queue_work_queue_parking_queue() {
    for_each(async |node| {
        let name = fresh("travels");
        let delay = Duration::from_millis(300);
        let work_queue = WorkQueue::shared_with_delays(&name, &[delay]).unwrap();
        let operator = connect(node, "operator");
        apply(&operator, &Topology::exchanges_only().with(&work_queue)).await.unwrap();
        node.note_declared();
        let lease = connect(node, "consumer").channel().await.unwrap();

        let sent = std::time::Instant::now();
        // The expiration, not the queue's own TTL of 1.2 times the delay, decides.
        publish(&lease, "correio.retry", &format!("{name}.retry.300ms"), Some("300")).await.unwrap();
        let tag = arrived(&lease, &name).await;
        assert!(sent.elapsed() >= delay, "early: {:?}", sent.elapsed());
        lease.channel().basic_reject(tag, BasicRejectOptions { requeue: false }).await.unwrap();
        arrived(&lease, &format!("{name}.dead")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shipped_user_can_do_what_it_is_for_and_no_more() {
    for_each(async |node| {
        let queue = fresh("rights");
        apply(&connect(node, "operator"), &shared(&queue)).await.unwrap();
        node.note_declared();
        let (retry, dead) = (format!("{queue}.retry.1s"), format!("{queue}.dead"));

        let may = async |user: &str, exchange: &str, key: &str| {
            let lease = connect(node, user).channel().await.unwrap();
            publish(&lease, exchange, key, None).await
        };
        for (user, exchange, key, allowed) in [
            ("producer", "correio.queue", &queue, true),
            ("producer", "correio.topic", &queue, true),
            ("producer", "correio.broadcast", &queue, true),
            ("producer", "", &queue, false),
            ("producer", "correio.dead", &dead, false),
            ("producer", "correio.retry", &retry, true),
            ("producer", "amq.direct", &queue, false),
            ("consumer", "correio.retry", &retry, true),
            ("consumer", "correio.dead", &dead, true),
            ("consumer", "correio.queue", &queue, true),
            ("consumer", "correio.reply", &queue, true),
            ("consumer", "", &queue, false),
            ("consumer", "correio.topic", &queue, false),
            ("consumer", "correio.broadcast", &queue, false),
            ("student", "correio.queue", &queue, false),
            ("student", "", &queue, false),
        ] {
            let expected = if allowed { Ok(()) } else { Err(Some(403)) };
            assert_eq!(may(user, exchange, key).await, expected, "{user} publishes to {exchange:?}");
        }

        for (user, queue, allowed) in [
            ("consumer", &queue, true),
            ("consumer", &dead, true),
            ("consumer", &retry, true),
            ("producer", &queue, false),
            ("producer", &dead, false),
            ("producer", &retry, false),
            ("student", &queue, false),
            ("student", &dead, false),
        ] {
            let lease = connect(node, user).channel().await.unwrap();
            let options = BasicConsumeOptions::default();
            let consuming =
                lease.channel().basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
            let consumed = code(timeout(STEP, consuming).await.unwrap().map(drop));
            let expected = if allowed { Ok(()) } else { Err(Some(403)) };
            assert_eq!(consumed, expected, "{user} consumes from {queue}");
        }

        for (user, name, allowed) in [
            ("producer", "anything", false),
            ("consumer", "anything", false),
            ("consumer", "correio.mailbox.", true),
            ("consumer", "correio.reply.", true),
            ("student", "correio.mailbox.", false),
            ("operator", "anything", true),
        ] {
            let name = fresh(name);
            let lease = connect(node, user).channel().await.unwrap();
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-expires".into(), AMQPValue::LongLongInt(60_000));
            let declared = declare(&lease, &name, arguments).await;
            node.note_declared();
            assert_eq!(declared, if allowed { Ok(()) } else { Err(Some(403)) }, "{user} declares {name}");
            if !allowed {
                continue;
            }
            for exchange in ["correio.topic", "correio.reply", "correio.broadcast"] {
                let binding = lease.channel().queue_bind(
                    name.as_str().into(),
                    exchange.into(),
                    name.as_str().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                );
                assert_eq!(code(timeout(STEP, binding).await.unwrap()), Ok(()), "{user} binds {name} to {exchange}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_by_its_exit_code_how_it_went() {
    for_each(async |node| {
        let url = address(node, "operator").url_with_password();
        let nowhere = Address::parse(&url).unwrap().with_vhost("nowhere").url_with_password();
        let queue = fresh("program");
        let run = async |args: &[&str], url: &str| {
            let program = Program::new("broker").args(args.iter().copied()).env("AMQP_URL", url);
            program.finish(Duration::from_secs(30)).await
        };
        for (args, url, code, said) in [
            (&["check", "--queue", &queue][..], &*url, 1, "missing"),
            (&["apply", "--queue", &queue], &url, 0, "queue"),
            (&["check", "--queue", &queue], &url, 0, "same"),
            (&["check", "--queue", &queue, "--ordered"], &url, 1, "x-single-active-consumer"),
            (&["apply", "--queue", &queue, "--ordered"], &url, 1, "exists with other arguments"),
            (&["plan", "--queue", "orders.dead"], &url, 2, "parking queue"),
            (&["check"], "http://u:secret@h", 2, "AMQP_URL"),
            (
                &["check"],
                &url.replace("operator:operator", "operator:secret"),
                3,
                "refuses the login of user “operator”",
            ),
            (&["check"], &nowhere, 3, "“nowhere”"),
            (&["check"], "amqp://operator:secret@127.0.0.1:1", 3, "no broker answers"),
        ] {
            let ran = run(args, url).await;
            node.note_declared();
            let printed = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, Some(code), "{args:?}: {printed}");
            assert!(printed.contains(said), "{args:?}: “{said}” is not in: {printed}");
            assert!(!printed.contains("secret") && !printed.contains(":operator@"), "a password: {printed}");
        }
        let ran = run(&["check", "--queue", &queue, "--json"], &url).await;
        let items: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(items.as_array().unwrap().iter().any(|item| item["name"] == *queue && item["finding"] == "same"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_version_is_told_by_its_own_words() {
    for_each(async |node| {
        let operator = connect(node, "operator");
        let server = operator.server_version().await.unwrap();
        assert_eq!((server.product.as_str(), server.version.as_str()), ("RabbitMQ", node.version()));
        assert!(server.major_minor().unwrap() >= (3, 10));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_a_wrong_virtual_host_are_told_apart_and_not_tried_for_ever() {
    for_each(async |node| {
        let attempt = async |address: Address| {
            Connections::new(address, ConnectionSettings::new("tests", "", Purpose::Publish))
                .channel()
                .await
                .unwrap_err()
        };
        let right = address(node, "producer");
        let error = attempt(right.clone().with_user("producer", "wrong")).await;
        assert!(matches!(&error, ConnectError::Credentials { user, .. } if user == "producer"), "{error:?}");
        assert!(error.is_permanent());
        let error = attempt(right.clone().with_vhost("nowhere")).await;
        assert!(matches!(&error, ConnectError::Vhost { vhost, .. } if vhost == "nowhere"), "{error:?}");
        assert!(error.is_permanent());
        let error = attempt(Address::new("127.0.0.1", 1, "u", "p")).await;
        assert!(matches!(&error, ConnectError::NoBroker { .. }), "{error:?}");
        assert!(!error.is_permanent());
    })
    .await;
}

async fn declare(lease: &LeasedChannel, name: &str, arguments: FieldTable) -> Result<(), Option<u16>> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = lease.channel().queue_declare(name.into(), options, arguments);
    code(timeout(STEP, declaring).await.unwrap().map(drop))
}

async fn publish(
    lease: &LeasedChannel,
    exchange: &str,
    key: &str,
    expiration: Option<&str>,
) -> Result<(), Option<u16>> {
    let channel = lease.channel();
    timeout(STEP, channel.confirm_select(ConfirmSelectOptions::default())).await.unwrap().unwrap();
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(expiration) = expiration {
        properties = properties.with_expiration(expiration.into());
    }
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, b"test", properties).await.unwrap();
    code(timeout(STEP, confirm).await.unwrap().map(drop))
}

/// Waits for a message on a queue, and gets it.
async fn arrived(lease: &LeasedChannel, queue: &str) -> u64 {
    let waiting = async {
        loop {
            let getting = lease.channel().basic_get(queue.into(), BasicGetOptions { no_ack: false });
            match getting.await.unwrap() {
                Some(got) => return got.delivery.delivery_tag,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(STEP, waiting).await.unwrap_or_else(|_| panic!("nothing arrives on {queue}"))
}

fn code(answer: Result<(), lapin::Error>) -> Result<(), Option<u16>> {
    answer.map_err(|error| ReplyCause::of(&error).code())
}
