//! `producer fire`: hands each line on and learns nothing.

use correio_broker_config::cli::{Exit, print_error};

use super::{
    Stop,
    args::{FireArgs, LineArgs},
    connect,
    input::Input,
    report::Report,
    sending::signals,
    shape,
    target::Target,
};

const PAYLOAD_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) async fn run(args: FireArgs) -> Result<Exit, Stop> {
    let LineArgs { file, rate, broker, origin, .. } = &args.line;
    let shape = shape(&args.line, Target::of(&args.line.destination)?)?;
    let mut input = Input::lines(file.as_deref(), shape, *rate, PAYLOAD_LIMIT).await.map_err(Stop::usage)?;
    let producer = connect(broker, origin, |settings| settings).await?;
    let mut report = Report::new();
    let mut stop = signals();
    let halted = loop {
        let next = tokio::select! {
            next = input.next() => next,
            Some(()) = stop.recv() => break None,
        };
        match next {
            Ok(Some(message)) => {
                report.on_expected(input.expected());
                tokio::select! {
                    fired = producer.fire(args.line.dressed(message)) => match fired {
                        Ok(_) => report.on_fired(),
                        Err(error) => report.on_not_sent(&error.cause.to_string()),
                    },
                    Some(()) = stop.recv() => {
                        report.on_not_sent("stopped by a signal");
                        break None;
                    }
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // Not an answer is waited for, only that the bytes leave.
    producer.close(std::time::Duration::from_secs(10)).await;
    let counts = producer.counts();
    let exit = report.exit(true, &counts);
    report.finish_fired(&counts, args.line.json);
    if let Some(error) = halted {
        print_error(&error);
        eprintln!("stopped: the lines before it were handed on; nothing after it was read");
        return Ok(Exit::Usage);
    }
    Ok(exit)
}
