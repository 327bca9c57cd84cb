//! Where the broker is, and as whom: from a URL, the environment, or the compose file's defaults.
//! A password goes in and reaches the broker; nothing here prints it.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use crate::amqp_url::{UrlError, UrlParts, percent_encode};

/// Where a broker is and who asks.
///
/// Its [`Debug`](fmt::Debug) and [`Display`](fmt::Display) forms show `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    vhost: String,
    user: String,
    password: String,
    heartbeat: Option<Duration>,
    connect_timeout: Option<Duration>,
    source: Source,
}

/// What a program does, which decides as whom it connects when nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Publishes: user `producer`.
    Producer,
    /// Consumes: user `consumer`.
    Consumer,
    /// Declares queues and exchanges: user `operator`.
    Operator,
}

/// Where an address was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller named it: `--amqp-url` in the programs.
    Explicit,
    /// The variable `AMQP_URL`.
    Environment,
    /// Nobody named one: localhost, under the role's own user as in the compose file.
    Default,
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// A part of the URL is wrong.
    #[error("the AMQP URL {from}: {cause}")]
    Url {
        /// Which URL.
        from: Source,
        /// What is wrong with it.
        #[source]
        cause: UrlError,
    },
    /// The URL names a user without a password, and no variable has one.
    #[error(
        "no password for the user “{user}”: put it into the URL (amqp://{user}:PASSWORD@…), or its file's name into \
         AMQP_PASSWORD_FILE, or itself into AMQP_PASSWORD"
    )]
    NoPassword {
        /// Whose password is missing.
        user: String,
    },
    /// The file that `AMQP_PASSWORD_FILE` names cannot be read.
    #[error("the password file {} (AMQP_PASSWORD_FILE) cannot be read: {source}", .path.display())]
    PasswordFile {
        /// The file's name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An environment variable is not UTF-8.
    #[error("the environment variable {name} is not UTF-8: set it again")]
    NotUtf8 {
        /// Its name.
        name: &'static str,
    },
}

impl Address {
    /// An address on the virtual host `/`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            vhost: "/".to_owned(),
            user: user.into(),
            password: password.into(),
            heartbeat: None,
            connect_timeout: None,
            source: Source::Explicit,
        }
    }

    /// The address in an AMQP URL, which must name the user and the password.
    ///
    /// # Errors
    ///
    /// [`AddressError`] naming the part of the URL that is wrong or missing, never its password.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        Self::resolve(Role::Operator, Some(url), &|_| Ok(None))
    }

    /// The address that `explicit` or else `AMQP_URL` names, or else localhost under the role's own user.
    ///
    /// A password that the URL leaves out is read from the file that `AMQP_PASSWORD_FILE` names, or else from
    /// `AMQP_PASSWORD`. A URL without a user means the role's own, as in the compose file. Empty variables count
    /// as unset.
    ///
    /// # Errors
    ///
    /// [`AddressError`] naming what is wrong or missing, never the password.
    pub fn from_environment(role: Role, explicit: Option<&str>) -> Result<Self, AddressError> {
        Self::resolve(role, explicit, &|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value).filter(|v| !v.is_empty())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(AddressError::NotUtf8 { name }),
        })
    }

    fn resolve(role: Role, explicit: Option<&str>, variable: &Lookup<'_>) -> Result<Self, AddressError> {
        let (url, source) = match explicit {
            Some(url) => (Some(url.to_owned()), Source::Explicit),
            None => match variable("AMQP_URL")? {
                Some(url) => (Some(url), Source::Environment),
                None => (None, Source::Default),
            },
        };
        let parts = match url {
            Some(url) => UrlParts::parse(&url).map_err(|cause| AddressError::Url { from: source, cause })?,
            None => UrlParts::localhost(),
        };
        let password = match (parts.password, &parts.user) {
            (Some(password), _) => password,
            (None, user) => match (password_from(variable)?, user) {
                (Some(password), _) => password,
                // Nobody named a user, so this is the compose file's own, whose password is its name.
                (None, None) => role.user().to_owned(),
                (None, Some(user)) => return Err(AddressError::NoPassword { user: user.clone() }),
            },
        };
        Ok(Self {
            host: parts.host,
            port: parts.port,
            vhost: parts.vhost,
            user: parts.user.unwrap_or_else(|| role.user().to_owned()),
            password,
            heartbeat: parts.heartbeat,
            connect_timeout: parts.connect_timeout,
            source,
        })
    }

    /// The same broker, another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// The same broker, as another user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = user.into();
        self.password = password.into();
        self
    }

    /// The broker's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The broker's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// As whom.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Where it was taken from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The heartbeat that the URL asks for (`?heartbeat=SECONDS`).
    #[must_use]
    pub fn heartbeat(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// The time to connect that the URL allows (`?connection_timeout=MILLISECONDS`).
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The URL *with its password*: for the environment of a child process, never for a person or a log.
    #[must_use]
    pub fn url_with_password(&self) -> String {
        // An IPv6 address is encoded rather than bracketed: lapin's own parser takes only that.
        let host = percent_encode(&self.host);
        let (user, password) = (percent_encode(&self.user), percent_encode(&self.password));
        format!("amqp://{user}:{password}@{host}:{}/{}", self.port, percent_encode(&self.vhost))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "amqp://{}:***@{open}{}{close}:{}", percent_encode(&self.user), self.host, self.port)?;
        if self.vhost == "/" { Ok(()) } else { write!(f, "/{}", percent_encode(&self.vhost)) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self}, {:?})", self.source)
    }
}

impl Role {
    /// The user of this role in the compose file; its password there is the same word.
    #[must_use]
    pub fn user(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explicit => "given with --amqp-url",
            Self::Environment => "in AMQP_URL",
            Self::Default => "of the compose file (neither --amqp-url nor AMQP_URL is set)",
        })
    }
}

type Lookup<'a> = dyn Fn(&'static str) -> Result<Option<String>, AddressError> + 'a;

fn password_from(variable: &Lookup<'_>) -> Result<Option<String>, AddressError> {
    let Some(path) = variable("AMQP_PASSWORD_FILE")?.map(PathBuf::from) else {
        return variable("AMQP_PASSWORD");
    };
    match fs::read_to_string(&path) {
        // Editors and `echo` end a file with a newline that is not part of the password.
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(source) => Err(AddressError::PasswordFile { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(role: Role, explicit: Option<&str>, env: &[(&str, &str)]) -> Result<Address, AddressError> {
        Address::resolve(role, explicit, &|name| Ok(env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())))
    }

    #[test]
    fn with_nothing_said_each_role_goes_to_localhost_under_its_own_user_and_knows_it() {
        let address = resolve(Role::Producer, None, &[]).unwrap();
        assert_eq!((address.host(), address.port(), address.vhost()), ("localhost", 5672, "/"));
        assert_eq!((address.user(), address.password.as_str()), ("producer", "producer"));
        assert_eq!(address.source(), Source::Default);
        assert_eq!(resolve(Role::Consumer, None, &[]).unwrap().user(), "consumer");
    }

    #[test]
    fn what_the_caller_names_wins_over_the_environment() {
        let env = [("AMQP_URL", "amqp://e:e@env")];
        assert_eq!(resolve(Role::Producer, Some("amqp://a:a@arg"), &env).unwrap().host(), "arg");
        assert_eq!(resolve(Role::Producer, None, &env).unwrap().source(), Source::Environment);
    }

    #[test]
    fn the_password_comes_from_the_url_then_the_file_then_the_variable() {
        let file = std::env::temp_dir().join(format!("correio-password-{}", std::process::id()));
        fs::write(&file, "from file\n").unwrap();
        let env = [("AMQP_PASSWORD_FILE", file.to_str().unwrap()), ("AMQP_PASSWORD", "from variable")];
        let password = |url, env: &[_]| resolve(Role::Producer, Some(url), env).unwrap().password;
        assert_eq!(password("amqp://u:url@h", &env), "url");
        assert_eq!(password("amqp://u@h", &env), "from file");
        assert_eq!(password("amqp://u@h", &env[1..]), "from variable");
        fs::remove_file(&file).unwrap();
        let gone = resolve(Role::Producer, Some("amqp://u@h"), &env).unwrap_err();
        assert!(gone.to_string().contains(file.to_str().unwrap()), "{gone}");
        let none = resolve(Role::Producer, Some("amqp://u@h"), &[]).unwrap_err().to_string();
        assert!(none.contains("“u”") && none.contains("AMQP_PASSWORD_FILE"), "{none}");
    }

    #[test]
    fn a_password_is_printed_by_nothing() {
        let address = Address::parse("amqp://u:s3cret@h/v").unwrap();
        for shown in [format!("{address}"), format!("{address:?}"), format!("{address:#?}")] {
            assert!(!shown.contains("s3cret") && shown.contains("***"), "{shown}");
        }
        for wrong in [
            "amqp://u:s3cret@h:p/",
            "amqp://u:s3/cret@h",
            "http://u:s3cret@h",
            "amqp://u:s3cret@h/a/b",
            "amqp://:s3cret@",
        ] {
            let error = Address::parse(wrong).unwrap_err();
            for shown in [error.to_string(), format!("{error:?}")] {
                assert!(!shown.contains("cret"), "{shown}");
            }
        }
    }

    #[test]
    fn the_url_for_a_child_process_reads_back_as_the_same_address() {
        for address in
            [Address::new("localhost", 5672, "u", "p"), Address::new("::1", 1, "ü@:/", "a b%#?/@:").with_vhost("a/b")]
        {
            assert_eq!(Address::parse(&address.url_with_password()).unwrap(), address);
        }
    }
}
