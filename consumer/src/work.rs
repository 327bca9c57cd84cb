//! What a pipeline has under way: handlers, copies, a call to the log. One owner, who joins all of it.

use std::{any::Any, collections::HashMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use correio_guarantees::{Claim, Failure};
use correio_message::{Envelope, ShortText};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    runtime::Handle,
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

#[cfg(feature = "metrics")]
use crate::reporting::Durations;
use crate::{
    context::Context,
    copies::{CopyPublisher, NotCopied},
    handled_log::{HandledLog, LogError, Transactions},
    handler::AnyHandler,
    held::Ticket,
    pipeline::{LogAnswer, LogCall},
    reply::Answer,
    telemetry::{self, Attempt},
};

/// Handlers, copies and a call to the log, under way.
pub(crate) struct Work {
    log: Option<Arc<dyn HandledLog>>,
    publisher: Arc<dyn CopyPublisher>,
    attempts: Attempts,
    /// What handles whole batches in transactions, if handlers ask for them.
    transactions: Option<Arc<dyn Transactions>>,
    transacting: Option<AbortOnDropHandle<LogAnswer>>,
    handlers: JoinSet<Result<Answer, Failure>>,
    running: HashMap<Id, Ticket>,
    copies: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    asking: Option<Asking>,
    /// For what is still to be said when all of this is dropped, wherever that is.
    runtime: Handle,
}

/// Something has ended.
#[derive(Debug)]
pub(crate) enum Done {
    Handler(Ticket, Result<Answer, Failure>),
    Aborted(Ticket),
    Copy(Ticket, Result<(), NotCopied>),
    Log(LogAnswer),
}

type Asking = Pin<Box<dyn Future<Output = LogAnswer> + Send>>;

impl Work {
    pub(crate) fn new(
        log: Option<Arc<dyn HandledLog>>,
        publisher: Arc<dyn CopyPublisher>,
        handler_deadline: Duration,
        queue: ShortText,
    ) -> Self {
        Self {
            log,
            publisher,
            attempts: Attempts::new(handler_deadline, queue),
            transactions: None,
            transacting: None,
            handlers: JoinSet::new(),
            running: HashMap::new(),
            copies: FuturesUnordered::new(),
            asking: None,
            runtime: Handle::current(),
        }
    }

    /// Messages are handled in batches, each in one transaction.
    pub(crate) fn in_transactions(mut self, transactions: Option<Arc<dyn Transactions>>) -> Self {
        self.transactions = transactions;
        self
    }

    pub(crate) fn handle(&mut self, ticket: Ticket, handler: Arc<dyn AnyHandler>, context: Context) {
        let task = self.handlers.spawn(self.attempts.run(handler, context));
        self.running.insert(task.id(), ticket);
    }

    pub(crate) fn publish(&mut self, ticket: Ticket, copy: Envelope) {
        let publishing = Arc::clone(&self.publisher).publish(copy);
        self.copies.push(Box::pin(async move { Done::Copy(ticket, publishing.await) }));
    }

    /// How many handlers are at work.
    #[cfg(feature = "metrics")]
    pub(crate) fn at_work(&self) -> usize {
        self.running.len()
    }

    /// Asks the log. A log in memory answers at once; for another, [`next`](Self::next) has the answer.
    pub(crate) fn ask(&mut self, call: LogCall) -> Option<LogAnswer> {
        if let LogCall::Transact(batch) = call {
            let transacting = Arc::clone(self.transactions.as_ref()?).run(batch, self.attempts.clone());
            // A task of its own: a handler that keeps its thread busy must not keep deliveries waiting.
            let transacting = self.runtime.spawn(async move { LogAnswer::Transacted(transacting.await) });
            self.transacting = Some(AbortOnDropHandle::new(transacting));
            return None;
        }
        let mut asking = asking(self.log.clone()?, call);
        let answer = (&mut asking).now_or_never();
        if answer.is_none() {
            self.asking = Some(asking);
        }
        answer
    }

    /// All of this is dropped: handlers go no further, and their claims end. The runtime sees to a log that does not answer
    /// at once.
    pub(crate) fn leave(&mut self, done: Vec<Claim>, open: Vec<Claim>) {
        self.handlers.abort_all();
        let Some(log) = self.log.clone() else { return };
        let mut leaving = Box::pin(async move {
            if !done.is_empty() {
                log.on_handled(&done).await?;
            }
            if !open.is_empty() {
                log.on_abandoned(&open).await?;
            }
            Ok::<_, LogError>(())
        });
        let _inside = self.runtime.enter();
        if (&mut leaving).now_or_never().is_none() {
            self.runtime.spawn(leaving);
        }
    }

    /// The next thing that ends; pends while nothing is under way.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Done {
        let asking = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        let transacting = async {
            match &mut self.transacting {
                Some(transacting) => transacting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = asking => {
                self.asking = None;
                Done::Log(answer)
            }
            answer = transacting => {
                self.transacting = None;
                Done::Log(answer.unwrap_or_else(|ended| LogAnswer::Transacted(Err(broken_off(ended)))))
            }
            Some(ended) = self.handlers.join_next_with_id() => ended_handler(&mut self.running, ended),
            Some(done) = self.copies.next() => done,
            // Each of the others is off while it has nothing under way.
            () = std::future::pending() => unreachable!("pends for ever"),
        }
    }

    /// The next thing that has ended already.
    pub(crate) fn try_next(&mut self) -> Option<Done> {
        self.next().now_or_never()
    }

    /// Stops all handlers and waits for them, at most until `until`: one that blocks its thread cannot be stopped.
    pub(crate) async fn abort_handlers(&mut self, until: Instant) -> Vec<Done> {
        self.handlers.abort_all();
        let mut ended = Vec::new();
        if let Some(transacting) = self.transacting.take() {
            transacting.abort();
            let answer = match timeout_at(until, transacting).await {
                // It was just over.
                Ok(Ok(answer)) => answer,
                Ok(Err(aborted)) => LogAnswer::Transacted(Err(broken_off(aborted))),
                Err(_) => LogAnswer::Transacted(Err(LogError { step: TRANSACTING, cause: "a handler blocks".into() })),
            };
            ended.push(Done::Log(answer));
        }
        while let Ok(Some(handler)) = timeout_at(until, self.handlers.join_next_with_id()).await {
            ended.push(ended_handler(&mut self.running, handler));
        }
        // Whatever still blocks is let go: its end is reported as aborted, and it can settle nothing any more.
        self.handlers.detach_all();
        ended.extend(self.running.drain().map(|(_, ticket)| Done::Aborted(ticket)));
        ended
    }
}

fn ended_handler(running: &mut HashMap<Id, Ticket>, ended: Result<(Id, Result<Answer, Failure>), JoinError>) -> Done {
    let (id, result) = match ended {
        Ok((id, result)) => (id, Some(result)),
        Err(error) => (error.id(), panicked(error)),
    };
    let Some(ticket) = running.remove(&id) else { unreachable!("every handler is registered when it is spawned") };
    match result {
        Some(result) => Done::Handler(ticket, result),
        None => Done::Aborted(ticket),
    }
}

/// The failure that a panic is; `None` if the task was aborted.
fn panicked(error: JoinError) -> Option<Result<Answer, Failure>> {
    Some(Err(failure_of(error.try_into_panic().ok()?)))
}

/// What a panic says.
pub(crate) fn failure_of(panic: Box<dyn Any + Send>) -> Failure {
    let message = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no text".to_owned(), |text| (*text).to_owned()),
    };
    Failure::Panicked { message }
}

/// Each attempt of a handler: bounded in time, and told of.
#[derive(Clone)]
pub(crate) struct Attempts {
    deadline: Duration,
    queue: ShortText,
    #[cfg(feature = "metrics")]
    durations: Arc<Durations>,
}

impl Attempts {
    pub(crate) fn new(deadline: Duration, queue: ShortText) -> Self {
        Self {
            deadline,
            #[cfg(feature = "metrics")]
            durations: Arc::new(Durations::new(&queue)),
            queue,
        }
    }

    /// One attempt; a panic of the handler is the future's.
    pub(crate) fn run(
        &self,
        handler: Arc<dyn AnyHandler>,
        context: Context,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + 'static {
        let after = self.deadline;
        let span = telemetry::processing(&self.queue, &context);
        #[cfg(feature = "metrics")]
        let attempt = Attempt::begin(&self.durations);
        #[cfg(not(feature = "metrics"))]
        let attempt = Attempt::begin();
        // The call itself stands inside, so that a panic while reading the argument is the task's too.
        let handling = async move { handler.handle(context).await };
        let bounded = async move {
            // Inside, so that a panic finds it.
            let attempt = attempt;
            let result = timeout(after, handling).await.unwrap_or(Err(Failure::TimedOut { after }));
            attempt.on_end(&result);
            result
        };
        bounded.instrument(span)
    }
}

fn broken_off(ended: JoinError) -> LogError {
    LogError { step: TRANSACTING, cause: Box::new(ended) }
}

fn asking(log: Arc<dyn HandledLog>, call: LogCall) -> Asking {
    Box::pin(async move {
        match call {
            LogCall::Transact(_) => unreachable!("handled in a task of its own"),
            LogCall::Abandon(claims) => {
                LogAnswer::Abandoned(bounded("giving a claim up", log.on_abandoned(&claims)).await)
            }
            LogCall::Remember(claims) => LogAnswer::Remembered(bounded("remembering", log.on_handled(&claims)).await),
            LogCall::Admit { claims, lease } => {
                LogAnswer::Admitted(bounded("claiming", log.admit(&claims, lease)).await)
            }
        }
    })
}

pub(crate) async fn bounded<T>(
    step: &'static str,
    asked: impl Future<Output = Result<T, LogError>>,
) -> Result<T, LogError> {
    match timeout(LOG_DEADLINE, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(LogError { step, cause: format!("no answer within {LOG_DEADLINE:?}").into() }),
    }
}

const LOG_DEADLINE: Duration = Duration::from_secs(30);
const TRANSACTING: &str = "handling in a transaction";
