//! How long it takes to ask whether ids were handled, among few that are remembered and among many; and what remembering takes, on
//! disk and in memory. Each in a process of its own.
//!
//! Both files are filled by `on_handled`, in large batches, with ids as a producer makes them (UUIDs of version 7). Then both are asked in
//! turn, a batch each, so that what else the machine does hits both. Their pages are with the operating system by then.

use std::{
    collections::BTreeSet,
    fmt, fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use correio_consumer::{
    Admission, Claim, Fence, HandledId, HandledLog, MemoryLog, MessageId, ShortText, SqliteLog, Standing, sqlx,
};
use uuid::Builder;

use crate::{
    Error,
    child::{IN_MEMORY, LOOK_UP, itself},
    consumed::scattered,
    disk,
    rounds::Spread,
    sample::told_as,
    usage::{Stopwatch, resident},
    verdict::{Bound, line},
};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    ids: u64,
    /// Of each kind of id: the medians, among few and among many.
    medians: [(Took, Took); KINDS.len()],
    /// Of the large file, for each id.
    bytes_on_disk: u64,
    /// Resident memory of that process: before it opened a file, and at its highest.
    memory: (u64, u64),
    /// For each id in a log in memory.
    bytes_in_memory: u64,
}

impl Found {
    /// Whether looking up among many is fast enough.
    pub fn verdicts(&self) -> impl Iterator<Item = String> {
        KINDS.iter().zip(self.medians).map(|(kind, (few, many))| {
            let ratio = many.wall / few.wall;
            let of = format!("time to admit {AT_ONCE} {} among {} beside {FEW} in SQLite", kind.name(), self.ids);
            let figure = format!("{ratio:.2} (CPU {:.2})", many.cpu / few.cpu);
            line(WANTED.is_met(ratio), &figure, &WANTED.to_string(), &of)
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, (few, many)) in KINDS.iter().zip(self.medians) {
            writeln!(f, "admitting {AT_ONCE} {}: {few} among {FEW}, {many} among {}", kind.name(), self.ids)?;
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (before, highest) = self.memory;
        writeln!(f, "on disk: {} bytes an id among {}", self.bytes_on_disk, self.ids)?;
        writeln!(
            f,
            "resident memory at its highest: {:.1} MiB (before: {:.1})",
            mebibytes(highest),
            mebibytes(before)
        )?;
        writeln!(f, "a log in memory: {} bytes an id among {IDS_IN_MEMORY}", self.bytes_in_memory)
    }
}

/// Runs the children.
///
/// # Errors
///
/// When one fails.
pub async fn measure(ids: u64) -> Result<Found, Error> {
    let told = tell(LOOK_UP, ids).await?;
    let words = told.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let mut medians = [(Took::default(), Took::default()); KINDS.len()];
    for (kind, medians) in KINDS.iter().zip(&mut medians) {
        let told = |which| -> Result<_, Error> {
            let figure = |what| told_as(&words, &format!("{}-{which}-{what}", kind.word()));
            Ok(Took { wall: figure("wall")?, cpu: figure("cpu")? })
        };
        *medians = (told("few")?, told("many")?);
    }
    Ok(Found {
        ids,
        medians,
        bytes_on_disk: told_as::<u64>(&words, "disk")? / ids,
        memory: (told_as(&words, "before")?, told_as(&words, "highest")?),
        bytes_in_memory: u64::from_str(tell(IN_MEMORY, IDS_IN_MEMORY).await?.trim())?,
    })
}

async fn tell(word: &str, ids: u64) -> Result<String, Error> {
    let mut command = itself(&[word, &ids.to_string()])?;
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(format!("“{word}” ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What the child does that has the files.
///
/// # Errors
///
/// When a log does not answer, or answers wrongly.
pub async fn in_child(ids: u64) -> Result<(), Error> {
    let folder = disk::folder()?;
    let (before, _) = resident()?;
    let few = Filled::new(&folder.path().join("few.db"), FEW).await?;
    let many = Filled::new(&folder.path().join("many.db"), ids).await?;
    for kind in KINDS {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS + WARM_UP {
            for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let took = [&few, &many][which].ask(kind, round).await?;
                if round >= WARM_UP {
                    times[which].push(took);
                }
            }
        }
        for (which, times) in ["few", "many"].into_iter().zip(times) {
            let median = |of: fn(&Took) -> f64| Spread::of(times.iter().map(of).collect()).ok_or("no rounds");
            println!("{}-{which}-wall={:.1}", kind.word(), median(|took| took.wall)?.median);
            println!("{}-{which}-cpu={:.1}", kind.word(), median(|took| took.cpu)?.median);
        }
    }
    let (_, highest) = resident()?;
    println!("disk={} before={before} highest={highest}", many.bytes().await?);
    Ok(())
}

/// What the child does that remembers in memory.
///
/// # Errors
///
/// When this process's memory is not to be had.
pub async fn memory_in_child(ids: u64) -> Result<(), Error> {
    let (before, _) = resident()?;
    let capacity = NonZeroUsize::new(usize::try_from(ids)?).ok_or("no ids")?;
    let log = MemoryLog::new(capacity, Duration::from_secs(3_600));
    fill(&log, ids).await?;
    let (after, _) = resident()?;
    println!("{}", after.saturating_sub(before) / ids);
    Ok(())
}

/// How long one batch took, in microseconds: a busy machine's clock, and the CPU time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Took {
    wall: f64,
    cpu: f64,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} µs (CPU {:.0})", self.wall, self.cpu)
    }
}

/// Which ids are asked for.
#[derive(Clone, Copy)]
enum Kind {
    /// Of messages that come for the first time.
    New,
    /// Of redeliveries and of what is sent twice.
    Recent,
    /// Of what is replayed after a long time.
    Old,
}

const KINDS: [Kind; 3] = [Kind::New, Kind::Recent, Kind::Old];

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Recent => "recent",
            Self::Old => "old",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::New => "new ids",
            Self::Recent => "of the last 10,000 ids handled",
            Self::Old => "ids handled at any time",
        }
    }

    fn admission(self) -> Admission {
        match self {
            Self::New => Admission::Fresh,
            Self::Recent | Self::Old => Admission::AlreadyHandled,
        }
    }
}

/// A log in which the ids below a number are remembered.
struct Filled {
    log: SqliteLog,
    path: PathBuf,
    ids: u64,
}

impl Filled {
    async fn new(path: &Path, ids: u64) -> Result<Self, Error> {
        let log = SqliteLog::open(path).await?;
        let since = Instant::now();
        fill(&log, ids).await?;
        eprintln!("{ids} ids remembered in {:.1?}", since.elapsed());
        Ok(Self { log, path: path.to_owned(), ids })
    }

    /// Admits a batch; how long that took.
    async fn ask(&self, kind: Kind, round: u64) -> Result<Took, Error> {
        let claims = self.batch(kind, round);
        let watch = Stopwatch::start()?;
        let admissions = self.log.admit(&claims, LEASE).await?;
        let (wall, cpu) = watch.seconds()?;
        let took = Took { wall: wall * 1e6, cpu: cpu * 1e6 };
        if admissions.iter().any(|admission| *admission != kind.admission()) {
            return Err(format!("{}: {admissions:?}", kind.name()).into());
        }
        if matches!(kind, Kind::New) {
            // Else the few would soon be more.
            self.log.on_abandoned(&claims).await?;
        }
        Ok(took)
    }

    fn batch(&self, kind: Kind, round: u64) -> Vec<Claim> {
        let among = match kind {
            Kind::New => return (0..AT_ONCE).map(|place| claim(self.ids + round * AT_ONCE + place)).collect(),
            Kind::Recent => FEW,
            Kind::Old => self.ids,
        };
        let random = (round << 32..).map(scattered).map(|number| self.ids - among + number % among);
        let mut chosen = BTreeSet::new();
        for number in random {
            chosen.insert(number);
            if chosen.len() as u64 == AT_ONCE {
                break;
            }
        }
        chosen.into_iter().map(claim).collect()
    }

    async fn bytes(&self) -> Result<u64, Error> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(self.log.pool()).await?;
        Ok(fs::metadata(&self.path)?.len())
    }
}

async fn fill(log: &impl HandledLog, ids: u64) -> Result<(), Error> {
    for first in (0..ids).step_by(FILLED_AT_ONCE) {
        let claims: Vec<_> = (first..ids.min(first + FILLED_AT_ONCE as u64)).map(claim).collect();
        if log.on_handled(&claims).await?.contains(&Standing::TakenOver) {
            return Err("ids of which nobody knows are taken".into());
        }
    }
    Ok(())
}

/// The claim on a message of which 15,000 are sent a second: within the same millisecond their ids are in no order.
fn claim(number: u64) -> Claim {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&scattered(number).to_be_bytes());
    random[8..].copy_from_slice(&number.to_be_bytes()[6..]);
    let id = Builder::from_unix_timestamp_millis(FIRST_SENT_MS + number / 15, &random).into_uuid().to_string();
    let id = MessageId::new(id).unwrap_or_else(|_| unreachable!("a UUID is an id"));
    let origin = ShortText::new("bench").ok();
    HANDLED_BY.with(|subscription| Claim {
        id: HandledId { id, origin, subscription: Arc::clone(subscription) },
        fence: Fence(scattered(number)),
    })
}

thread_local! {
    static HANDLED_BY: Arc<str> = Arc::from("bench.consumed");
}

const WANTED: Bound = Bound::AtMost(2.0);
/// Among so many ids looking up is fast for sure.
pub const FEW: u64 = 10_000;
const IDS_IN_MEMORY: u64 = 100_000;
const AT_ONCE: u64 = 128;
const FILLED_AT_ONCE: usize = 10_000;
const ROUNDS: u64 = 200;
const WARM_UP: u64 = 10;
const LEASE: Duration = Duration::from_secs(60);
const FIRST_SENT_MS: u64 = 1_760_000_000_000;
