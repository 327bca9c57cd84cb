//! Where the lines of a run go.

use correio_message::{Destination, Route, ShortText};

use super::{Stop, args::DestinationArgs, template::TopicTemplate};

/// Where the lines of a run go: all to one address, or each to its own.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    One(Destination),
    ByLine(TopicTemplate),
}

impl Target {
    /// Everything that is wrong with the address shows here, before anything is read or sent.
    pub(crate) fn of(args: &DestinationArgs) -> Result<Self, Stop> {
        let DestinationArgs { to, mailbox, topic, topic_template, broadcast, exchange, routing_key } = args;
        if let Some(template) = topic_template {
            let template = TopicTemplate::parse(template).map_err(Stop::usage)?;
            return Ok(template.constant().map_or(Self::ByLine(template), Self::One));
        }
        let one = if let Some(queue) = to {
            Destination::queue(queue).map_err(Stop::usage)?
        } else if let Some(name) = mailbox {
            Destination::mailbox(name).map_err(Stop::usage)?
        } else if let Some(key) = topic {
            Destination::topic(key).map_err(Stop::usage)?
        } else if *broadcast {
            Destination::Everyone
        } else {
            Destination::Route(Route {
                exchange: ShortText::new(exchange.as_deref().unwrap_or_default()).map_err(Stop::usage)?,
                routing_key: ShortText::new(routing_key.as_deref().unwrap_or_default()).map_err(Stop::usage)?,
            })
        };
        Ok(Self::One(one))
    }
}

impl DestinationArgs {
    /// The same as options, to be repeated on another command line.
    pub(crate) fn as_options(&self) -> String {
        let Self { to, mailbox, topic, topic_template, broadcast, exchange, routing_key } = self;
        let named = [
            ("--to", to),
            ("--mailbox", mailbox),
            ("--topic", topic),
            ("--topic-template", topic_template),
            ("--exchange", exchange),
            ("--routing-key", routing_key),
        ];
        let mut options: Vec<_> =
            named.iter().filter_map(|(name, value)| Some(format!("{name} {}", quoted(value.as_deref()?)))).collect();
        options.extend(broadcast.then(|| "--broadcast".to_owned()));
        options.join(" ")
    }
}

/// As a shell takes it.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/@+:".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
