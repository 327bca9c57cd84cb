//! What the chosen settings give up, in a few words each: every off-switch has its price.

use crate::program::{
    args::{Ack, Run},
    dedup::Dedup,
};

/// One sentence for each guarantee that is switched off.
pub(crate) fn prices(args: &Run) -> Vec<&'static str> {
    let off = [
        (
            args.ack == Ack::OnDelivery,
            "--ack on-delivery: at most once; what is held here when this process dies is lost, and what fails is \
             not retried through the broker",
        ),
        (args.dedup == Dedup::Off, "--dedup off: a message that comes twice is handled twice"),
        (
            args.no_breaker,
            "--no-breaker: while what handlers need is away, every message uses its retries up and is parked",
        ),
        (args.retries == 0, "--retries 0: a message that fails once is a dead letter"),
    ];
    off.into_iter().filter_map(|(is_off, price)| is_off.then_some(price)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::program::args::{Cli, Command};

    fn of(args: &str) -> Vec<&'static str> {
        let cli = Cli::parse_from(format!("consumer run --from q {args}").split_whitespace());
        let Command::Run(run) = cli.command else { panic!("not run") };
        prices(&run)
    }

    #[test]
    fn the_defaults_give_nothing_up_and_every_off_switch_tells_its_price() {
        assert!(of("").is_empty());
        for switch in ["--ack on-delivery", "--dedup off", "--no-breaker", "--retries 0"] {
            let prices = of(switch);
            assert_eq!(prices.len(), 1);
            assert!(prices[0].starts_with(switch));
        }
    }
}
