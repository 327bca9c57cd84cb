//! Where an address comes from: a URL, the environment, or the compose file's defaults.

use std::{fmt, path::PathBuf};

use crate::{address::Address, address_error::AddressError, amqp_url::UrlParts, password::Password};

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

impl Address {
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
    /// A password that the URL leaves out is read from the file that `AMQP_PASSWORD_FILE` names, now and again for each new
    /// connection, or else from `AMQP_PASSWORD`. A URL without a user means the role's own, as in the compose file. Empty variables count
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
        let mut parts = match url {
            Some(url) => UrlParts::parse(&url).map_err(|cause| AddressError::Url { from: source, cause })?,
            None => UrlParts::localhost(),
        };
        let password = match (parts.password.take(), &parts.user) {
            (Some(password), _) => Password::Fixed(password),
            (None, user) => match (password_from(variable)?, user) {
                (Some(password), _) => password,
                // Nobody named a user, so this is the compose file's own, whose password is its name.
                (None, None) => Password::Fixed(role.user().to_owned()),
                (None, Some(user)) => return Err(AddressError::NoPassword { user: user.clone() }),
            },
        };
        Ok(Self::of_parts(parts, role.user(), password, source))
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

fn password_from(variable: &Lookup<'_>) -> Result<Option<Password>, AddressError> {
    let Some(path) = variable("AMQP_PASSWORD_FILE")?.map(PathBuf::from) else {
        return Ok(variable("AMQP_PASSWORD")?.map(Password::Fixed));
    };
    let password = Password::InFile(path.clone());
    match password.read() {
        Ok(_) => Ok(Some(password)),
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
        assert_eq!((address.user(), address.password().as_str()), ("producer", "producer"));
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
        std::fs::write(&file, "from file\n").unwrap();
        let env = [("AMQP_PASSWORD_FILE", file.to_str().unwrap()), ("AMQP_PASSWORD", "from variable")];
        let password = |url, env: &[_]| resolve(Role::Producer, Some(url), env).unwrap().password();
        assert_eq!(password("amqp://u:url@h", &env), "url");
        assert_eq!(password("amqp://u@h", &env), "from file");
        assert_eq!(password("amqp://u@h", &env[1..]), "from variable");
        let address = resolve(Role::Producer, Some("amqp://u@h"), &env).unwrap();
        std::fs::write(&file, "changed").unwrap();
        assert_eq!(address.password(), "changed");
        std::fs::write(&file, "\n").unwrap();
        assert!(resolve(Role::Producer, Some("amqp://u@h"), &env).is_err(), "a file that is just being written");
        std::fs::remove_file(&file).unwrap();
        let gone = resolve(Role::Producer, Some("amqp://u@h"), &env).unwrap_err();
        assert!(gone.to_string().contains(file.to_str().unwrap()), "{gone}");
        let none = resolve(Role::Producer, Some("amqp://u@h"), &[]).unwrap_err().to_string();
        assert!(none.contains("“u”") && none.contains("AMQP_PASSWORD_FILE"), "{none}");
    }
}
