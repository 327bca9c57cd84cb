//! The node: started, killed, restarted, paused and ended; its addresses, users and version.

use super::{
    LabError, Server,
    container::{AMQP_INSIDE, DASHBOARD_INSIDE, FILES_INSIDE, NodeContainer, TLS_INSIDE},
    hello::ask_version,
    node_faults::DIES,
    node_files::Files,
    place,
    ports::{free_port, is_free},
    process::NodeProcess,
    run::run,
    server::ServerKind,
    tls_listener::TlsListener,
    watchdog::Watchdog,
};
use std::{
    path::Path,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use uuid::Uuid;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The project's own `rabbitmq.conf` and `definitions.json`: our exchanges, queues and users. Without them the broker is
    /// empty, and the same users may do everything.
    pub with_project_files: bool,
    /// RabbitMQ's dashboard, on port 15672 if that is free, else on any. Costs a second of starting time.
    pub dashboard: bool,
    /// AMQP on port 5672, where programs look without being told, if that is free. A test never wants this: other programs could
    /// find its node.
    pub usual_port: bool,
    /// A second listener, with TLS.
    pub tls: Option<TlsListener>,
    /// How long the node may take to come up.
    pub boot_deadline: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            with_project_files: true,
            dashboard: false,
            usual_port: false,
            tls: None,
            boot_deadline: Duration::from_secs(90),
        }
    }
}

/// A user that exists on every node of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// The lab's own: may do everything. Its password is another one on each node.
    Lab,
    /// The project's user for producers.
    Producer,
    /// The project's user for consumers.
    Consumer,
    /// The project's user for looking at the dashboard.
    Student,
}

impl Login {
    /// The name to log in with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Student => "student",
        }
    }

    /// The password that the project's files give this user: for learning and tests, the name once more.
    pub(crate) fn project_password(self) -> &'static str {
        self.name()
    }
}

/// A private RabbitMQ node.
///
/// Everything of it (data, logs, cookie, ports) is its own. Dropping it, or the end of this process in whatever way, ends the
/// node and removes its folder; [`Node::close`] does so and waits.
#[derive(Debug)]
pub struct Node {
    pub(super) name: String,
    pub(super) backend: Backend,
    amqp_port: u16,
    dashboard_port: Option<u16>,
    tls_port: Option<u16>,
    lab_password: String,
    boot_deadline: Duration,
    version: OnceLock<String>,
    pub(super) last_declare: Mutex<Instant>,
    watchdog: Watchdog,
}

#[derive(Debug)]
pub(super) enum Backend {
    Process(NodeProcess),
    Container(NodeContainer),
}

impl Node {
    /// Starts a node of a server that [`Server::discover`] finds, and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`Server::discover`] and [`Node::start_from`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a node that is half up is ended.
    pub async fn start(options: NodeOptions) -> Result<Self, LabError> {
        let server = Server::discover().await?;
        Self::start_from(&server, "rabbitmq", options).await
    }

    /// Starts a node of this server, and waits until it answers. `name` is for people.
    ///
    /// # Errors
    ///
    /// [`LabError::BootFailed`], with the end of the node's log, when it does not come up before the deadline; others when the
    /// server cannot be run at all.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a node that is half up is ended.
    pub async fn start_from(server: &Server, name: &str, options: NodeOptions) -> Result<Self, LabError> {
        let mut tries_left = 2;
        loop {
            let node = Self::prepare(server, name, &options).await?;
            match node.boot().await {
                // Another process took one of the ports between our look and the node's start.
                Err(LabError::BootFailed { log, .. }) if tries_left > 0 && log.contains("eaddrinuse") => {
                    tries_left -= 1;
                }
                Err(error) => {
                    // The reason why it did not start says more than one why it cannot be cleared away.
                    let _ = node.close().await;
                    return Err(error);
                }
                Ok(()) => return Ok(node),
            }
        }
    }

    /// What people call this broker: its name in `CORREIO_BROKERS`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that the broker gives itself, such as `4.3.6`.
    pub fn version(&self) -> &str {
        self.version.get().map_or("unknown", String::as_str)
    }

    /// The port on 127.0.0.1 that speaks AMQP: what a proxy leads to.
    pub fn amqp_address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.amqp_port).into()
    }

    /// The port on 127.0.0.1 that speaks AMQP over TLS, when the node was started with one.
    pub fn tls_address(&self) -> Option<std::net::SocketAddr> {
        self.tls_port.map(|port| ([127, 0, 0, 1], port).into())
    }

    /// The URL for this user, password included.
    pub fn amqp_url(&self, login: Login) -> String {
        self.amqp_url_through(login, self.amqp_address())
    }

    /// The URL for this user through a proxy at that address.
    pub fn amqp_url_through(&self, login: Login, proxy: std::net::SocketAddr) -> String {
        format!("amqp://{}:{}@{proxy}/%2f", login.name(), self.password(login))
    }

    /// The password of this user.
    pub fn password(&self, login: Login) -> &str {
        if login == Login::Lab { &self.lab_password } else { login.project_password() }
    }

    /// The dashboard's address, when the node was started with one.
    pub fn management_url(&self) -> Option<String> {
        self.dashboard_port.map(|port| format!("http://127.0.0.1:{port}/"))
    }

    /// The node's folder: its configuration, data and logs, until it is closed.
    pub fn folder(&self) -> &Path {
        self.watchdog.folder()
    }

    /// Runs `rabbitmqctl` against the node and gives back what it printed. Costs about a second of processor time.
    ///
    /// # Errors
    ///
    /// [`LabError::CommandFailed`] with what it printed, or [`LabError::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// The command is killed when this future is dropped; what it had done is done.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = match &self.backend {
            Backend::Process(process) => process.ctl(),
            Backend::Container(container) => container.ctl(),
        };
        run(command.args(arguments), CTL).await
    }

    /// Ends the node, throws its data away, and waits until nothing of it is left.
    ///
    /// # Errors
    ///
    /// [`LabError::TimedOut`] when something of it will not go.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is left is cleared away in the background.
    pub async fn close(self) -> Result<(), LabError> {
        self.watchdog.end().await?;
        match self.backend {
            Backend::Process(process) => process.ended(DIES).await,
            Backend::Container(_) => Ok(()),
        }
    }

    /// Chooses ports, writes files, makes the container if it is one. Nothing runs yet.
    async fn prepare(server: &Server, name: &str, options: &NodeOptions) -> Result<Self, LabError> {
        let farewell = |folder: &Path| match &server.kind {
            ServerKind::Programs(_) => Vec::new(),
            ServerKind::Image(_) => {
                ["docker", "rm", "--force", "--volumes", &NodeContainer::name_for(folder)].map(str::to_owned).to_vec()
            }
        };
        let watchdog = Watchdog::start(&place::for_nodes(), farewell).await?;
        let folder = watchdog.folder().to_owned();
        let amqp_port = if options.usual_port && is_free(USUAL_AMQP) { USUAL_AMQP } else { free_port()? };
        let dashboard_port = match options.dashboard {
            false => None,
            true if is_free(USUAL_DASHBOARD) => Some(USUAL_DASHBOARD),
            true => Some(free_port()?),
        };
        let tls_port = options.tls.as_ref().map(|_| free_port()).transpose()?;
        let tls = |address, port: Option<u16>| {
            let listener = options.tls.as_ref()?;
            Some((listener, (address, port?)))
        };
        let lab_password = format!("{:x}{:x}", Uuid::now_v7().as_u128() as u64, Uuid::now_v7().as_u128() as u64);
        let files = |amqp, dashboard, tls, seen_at: &Path| {
            let project = options.with_project_files;
            Files { project, amqp, dashboard, tls, seen_at, lab_password: &lab_password }.write(&folder)
        };
        let backend = match &server.kind {
            ServerKind::Programs(programs) => {
                let here = "127.0.0.1";
                let tls = tls(here, tls_port);
                files((here, amqp_port), dashboard_port.map(|port| (here, port)), tls, &folder)?;
                Backend::Process(NodeProcess::new(programs.clone(), &folder, free_port()?, free_port()?)?)
            }
            ServerKind::Image(image) => {
                let all = "0.0.0.0";
                let tls = tls(all, tls_port.map(|_| TLS_INSIDE));
                let inside = Path::new(FILES_INSIDE);
                files((all, AMQP_INSIDE), dashboard_port.map(|_| (all, DASHBOARD_INSIDE)), tls, inside)?;
                let outside =
                    [(Some(amqp_port), AMQP_INSIDE), (dashboard_port, DASHBOARD_INSIDE), (tls_port, TLS_INSIDE)];
                Backend::Container(NodeContainer::create(image, &folder, &outside).await?)
            }
        };
        Ok(Self {
            name: name.to_owned(),
            backend,
            amqp_port,
            dashboard_port,
            tls_port,
            lab_password,
            boot_deadline: options.boot_deadline,
            version: OnceLock::new(),
            last_declare: Mutex::new(Instant::now()),
            watchdog,
        })
    }

    pub(super) async fn boot(&self) -> Result<(), LabError> {
        match &self.backend {
            Backend::Process(process) => process.start().await?,
            Backend::Container(container) => container.start().await?,
        }
        // The definitions declare queues too.
        self.note_declared();
        let deadline = Instant::now() + self.boot_deadline;
        loop {
            match self.is_ready().await {
                Ok(()) => break,
                Err(_) if !self.is_running().await => {
                    return Err(self.boot_failed("its process ended".to_owned()).await);
                }
                Err(why) if Instant::now() > deadline => {
                    return Err(self.boot_failed(format!("after {:?}: {why}", self.boot_deadline)).await);
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        self.note_declared();
        Ok(())
    }

    /// Ready is: the broker introduces itself, the lab's user may log in, and the dashboard's port and that of TLS are
    /// open.
    async fn is_ready(&self) -> Result<(), String> {
        let version =
            ask_version(self.amqp_port).await.map_err(|error| format!("its AMQP port does not answer: {error}"))?;
        let _ = self.version.set(version);
        self.logs_in().await.map_err(|error| error.to_string())?;
        for (what, port) in [("dashboard", self.dashboard_port), ("port with TLS", self.tls_port)] {
            let Some(port) = port else { continue };
            let connecting = TcpStream::connect(("127.0.0.1", port));
            connecting.await.map_err(|error| format!("its {what} does not answer: {error}"))?;
        }
        Ok(())
    }

    async fn boot_failed(&self, why: String) -> LabError {
        let log = match &self.backend {
            Backend::Process(process) => process.log_tail(),
            Backend::Container(container) => container.log_tail().await,
        };
        LabError::BootFailed { name: self.name.clone(), why, log }
    }
}

const USUAL_AMQP: u16 = 5672;
const USUAL_DASHBOARD: u16 = 15672;
const CTL: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
