//! What `--metrics-addr` answers: metrics for Prometheus, and the two probes of an orchestrator.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{Health, HealthWatch};

/// What the answers are made of.
#[derive(Clone)]
pub(crate) struct Probes {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) health: HealthWatch,
    pub(crate) pulse: Pulse,
}

/// When the program's loop last turned.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(Arc<Mutex<Instant>>);

impl Probes {
    /// `/metrics`, `/livez`, `/readyz`. Each answer ends its connection.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(async |State(probes): State<Self>| metrics(probes.metrics.render())))
            .route("/livez", get(async |State(probes): State<Self>| text(liveness(probes.pulse.age()))))
            .route(
                "/readyz",
                get(async |State(probes): State<Self>| text(readiness(&probes.health.now(), Instant::now()))),
            )
            .fallback(async || text((StatusCode::NOT_FOUND, WHAT_THERE_IS.to_owned())))
            .with_state(self)
    }
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Beats for as long as the task that it is polled in turns.
    pub(crate) async fn beat(&self) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            ticks.tick().await;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Alive is whose loop turns, whatever the broker does: restarting a program does not bring its broker back.
fn liveness(pulse: Duration) -> (StatusCode, String) {
    if pulse < STUCK {
        return (StatusCode::OK, "alive".to_owned());
    }
    let whole = Duration::from_secs(pulse.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: the program's loop has not turned for {whole:?}"))
}

/// Ready is who is subscribed.
fn readiness(health: &Health, now: Instant) -> (StatusCode, String) {
    let status = if health.is_subscribed() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health.in_words(now))
}

fn metrics(rendered: String) -> Response {
    // The version of the format, which Prometheus reads.
    ([CLOSE, (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], rendered).into_response()
}

fn text((status, words): (StatusCode, String)) -> Response {
    let headers = [CLOSE, (header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, words + "\n").into_response()
}

/// One request a connection: a connection that is kept would have to be watched.
const CLOSE: (HeaderName, &str) = (header::CONNECTION, "close");
const WHAT_THERE_IS: &str = "there is /metrics, /livez and /readyz";
const BEAT: Duration = Duration::from_secs(1);
/// How many beats may be missed, on a machine that is overcrowded.
const STUCK: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_only_who_is_subscribed_and_the_others_are_told_why() {
        let now = Instant::now();
        let lost = Health::Away { since: now - Duration::from_secs(7), why: "connection reset".into() };
        for (health, status, words) in [
            (Health::Subscribed, 200, "subscribed"),
            (lost, 503, "not subscribed for 7s: connection reset"),
            (Health::Stopping, 503, "stopping: it finishes what was begun and takes nothing new"),
            (Health::Ended, 503, "ended"),
        ] {
            let (code, said) = readiness(&health, now);
            assert_eq!((code.as_u16(), said.as_str()), (status, words));
        }
    }

    #[test]
    fn alive_is_whose_loop_turns() {
        assert_eq!(liveness(Duration::from_secs(2)).0, StatusCode::OK);
        let (code, said) = liveness(Duration::from_secs(16));
        assert_eq!((code.as_u16(), said.as_str()), (503, "stuck: the program's loop has not turned for 16s"));
    }

    #[tokio::test]
    async fn the_pulse_is_that_of_the_task_it_beats_in() {
        let pulse = Pulse::new();
        *pulse.0.lock().unwrap() = Instant::now() - STUCK;
        assert_eq!(liveness(pulse.age()).0, StatusCode::SERVICE_UNAVAILABLE);
        tokio::select! {
            never = pulse.beat() => match never {},
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        assert_eq!(liveness(pulse.age()).0, StatusCode::OK);
    }
}
