//! Handlers: plain async functions, chosen by the type of the message.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
};

use correio_guarantees::Failure;
use correio_message::ShortText;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::transaction::Transaction;
use crate::{
    context::Context,
    extract::FromMessage,
    on_error::failed,
    reply::{Answer, IntoAnswer},
};

/// What a handler may fail with: any error, or a text.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A function that handles messages: `async fn(Json<Order>, Context) -> Result<Verdict, E>`.
///
/// Implemented for every `Fn` that
/// - takes one argument that is [`FromMessage`] (`Json<T>`, `Message`, `Bytes`), and, if it wants, a [`Context`], and, if it
///   wants, a `Transaction` of the database that the log of handled messages is in (features `sqlite`, `postgres`);
/// - returns a `Send` future of `Result<V, E>`, where `V` is `()` (done), a [`Verdict`](crate::Verdict) or a
///   [`Reply`](crate::Reply) to who asked, and `E` any error or text.
///
/// `Err`, a panic and a missed handler deadline are failures: the message is retried by its schedule, then
/// parked as a dead letter with the error and its sources, and who asked gets the error as the answer. An error can say
/// otherwise: see [`OnError`](crate::OnError).
///
/// # Cancel safety
///
/// The future is dropped where it stands when the handler deadline passes, and when the consumer stops and
/// its drain deadline passes; the message comes again then. An effect that must not be half done belongs into one transaction.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "this cannot handle messages",
    note = "a handler is `async fn(Json<T>, Context) -> Result<Verdict, E>`; the `Context` may be left out or followed by a `Transaction<Sqlite>` or `Transaction<Postgres>`, `Json<T>` may be `Message` or `Bytes`, `Verdict` may be `()` or `Reply`",
    note = "`E` must be an error (`Into<Box<dyn Error + Send + Sync>>`) and the future `Send`; write the argument types of a closure out"
)]
pub trait Handler<Arguments>: Send + Sync + 'static {
    /// Reads the argument from the message and handles it.
    fn handle(&self, context: Context) -> Handling;

    /// The name of the database whose transaction it asks for, if it does.
    #[must_use]
    fn database(&self) -> Option<&'static str> {
        None
    }
}

/// A handler at work.
pub type Handling = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

impl<F, M, Fut, V, E> Handler<(M,)> for F
where
    F: Fn(M) -> Fut + Send + Sync + 'static,
    M: FromMessage,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: IntoAnswer + 'static,
    E: Into<BoxError> + 'static,
{
    fn handle(&self, context: Context) -> Handling {
        match M::from_message(context.message()) {
            Ok(argument) => Box::pin(answered(self(argument))),
            Err(error) => Box::pin(async move { Err(unreadable(error)) }),
        }
    }
}

impl<F, M, Fut, V, E> Handler<(M, Context)> for F
where
    F: Fn(M, Context) -> Fut + Send + Sync + 'static,
    M: FromMessage,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: IntoAnswer + 'static,
    E: Into<BoxError> + 'static,
{
    fn handle(&self, context: Context) -> Handling {
        match M::from_message(context.message()) {
            Ok(argument) => Box::pin(answered(self(argument, context))),
            Err(error) => Box::pin(async move { Err(unreadable(error)) }),
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<F, M, Fut, V, E, DB> Handler<(M, Transaction<DB>)> for F
where
    F: Fn(M, Transaction<DB>) -> Fut + Send + Sync + 'static,
    M: FromMessage,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: IntoAnswer + 'static,
    E: Into<BoxError> + 'static,
    DB: sqlx::Database,
{
    fn handle(&self, context: Context) -> Handling {
        in_transaction(context, |argument, _, transaction| self(argument, transaction))
    }

    fn database(&self) -> Option<&'static str> {
        Some(DB::NAME)
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl<F, M, Fut, V, E, DB> Handler<(M, Context, Transaction<DB>)> for F
where
    F: Fn(M, Context, Transaction<DB>) -> Fut + Send + Sync + 'static,
    M: FromMessage,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: IntoAnswer + 'static,
    E: Into<BoxError> + 'static,
    DB: sqlx::Database,
{
    fn handle(&self, context: Context) -> Handling {
        in_transaction(context, self)
    }

    fn database(&self) -> Option<&'static str> {
        Some(DB::NAME)
    }
}

/// Calls a handler with its transaction, and tells who owns that what was the database's fault.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn in_transaction<M, Fut, V, E, DB>(context: Context, call: impl FnOnce(M, Context, Transaction<DB>) -> Fut) -> Handling
where
    M: FromMessage,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: IntoAnswer + 'static,
    E: Into<BoxError> + 'static,
    DB: sqlx::Database,
{
    let argument = match M::from_message(context.message()) {
        Ok(argument) => argument,
        Err(error) => return Box::pin(async move { Err(unreadable(error)) }),
    };
    let slot = context.transaction.clone();
    let transaction = match crate::transaction::of(slot.as_ref()) {
        Ok(transaction) => transaction,
        Err(error) => return Box::pin(async move { Err(failed(error.as_ref())) }),
    };
    let answer = call(argument, context, transaction);
    Box::pin(async move {
        match answer.await {
            Ok(answer) => Ok(answer.into_answer()),
            Err(error) => {
                let error: BoxError = error.into();
                if let Some(slot) = slot {
                    slot.on_error(error.as_ref());
                }
                Err(failed(error.as_ref()))
            }
        }
    })
}

async fn answered<V: IntoAnswer, E: Into<BoxError>>(
    answer: impl Future<Output = Result<V, E>>,
) -> Result<Answer, Failure> {
    match answer.await {
        Ok(answer) => Ok(answer.into_answer()),
        Err(error) => Err(failed(error.into().as_ref())),
    }
}

fn unreadable(error: BoxError) -> Failure {
    Failure::Unreadable { error: with_sources(error.as_ref()) }
}

/// An error and what caused it, outermost first; a source that its error already quotes is not repeated.
pub(crate) fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}

/// The handlers of a consumer: by type, and one for all the others.
#[derive(Default)]
pub(crate) struct Handlers {
    by_type: BTreeMap<ShortText, Arc<dyn AnyHandler>>,
    any: Option<Arc<dyn AnyHandler>>,
}

impl Handlers {
    /// Registers one for a type; `false` if the type has one already.
    pub(crate) fn on<A: 'static>(&mut self, message_type: ShortText, handler: impl Handler<A>) -> bool {
        self.by_type.insert(message_type, erased(handler)).is_none()
    }

    /// Registers the one for all other types; `false` if there is one already.
    pub(crate) fn on_any<A: 'static>(&mut self, handler: impl Handler<A>) -> bool {
        self.any.replace(erased(handler)).is_none()
    }

    /// The names of the databases whose transactions they ask for.
    pub(crate) fn databases(&self) -> BTreeSet<&'static str> {
        self.by_type.values().chain(&self.any).filter_map(|handler| handler.database()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_type.is_empty() && self.any.is_none()
    }

    pub(crate) fn of(&self, message_type: Option<&ShortText>) -> Option<Arc<dyn AnyHandler>> {
        message_type.and_then(|name| self.by_type.get(name)).or(self.any.as_ref()).cloned()
    }
}

/// A handler whose argument types are forgotten, so that handlers of different types stand in one map.
pub(crate) trait AnyHandler: Send + Sync {
    fn handle(&self, context: Context) -> Handling;

    fn database(&self) -> Option<&'static str>;
}

struct Erased<H, A>(H, PhantomData<fn(A)>);

impl<H: Handler<A>, A> AnyHandler for Erased<H, A> {
    fn handle(&self, context: Context) -> Handling {
        self.0.handle(context)
    }

    fn database(&self) -> Option<&'static str> {
        self.0.database()
    }
}

fn erased<A: 'static>(handler: impl Handler<A>) -> Arc<dyn AnyHandler> {
    Arc::new(Erased(handler, PhantomData))
}
