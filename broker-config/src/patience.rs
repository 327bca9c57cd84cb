//! How long who was connected before bears that the broker does not let it in any more.

use crate::{address::Address, connect_error::ConnectError};

/// Counts refused logins and certificates after a loss, until trying again has become hopeless.
///
/// On a first attempt such a refusal is final at once ([`ConnectError::is_permanent`]). After a loss it may be passing: a
/// broker that restarts may not have its users yet, and a password file may be changed only after the broker's password. So it is
/// borne, with growing pauses ([`Backoff`](crate::Backoff)), but not for ever: some 40 s, and some 4 min where credentials are
/// in files that may change. What else goes wrong in between, as an unreachable node does, does not count and does
/// not start the count anew.
#[derive(Clone, Debug)]
pub struct Patience {
    refused: u32,
    most: u32,
}

impl Patience {
    /// The patience that the credentials of this address deserve.
    #[must_use]
    pub fn with(address: &Address) -> Self {
        Self { refused: 0, most: if address.has_changing_credentials() { CHANGING } else { FIXED } }
    }

    /// An attempt to connect failed.
    pub fn on_failure(&mut self, error: &ConnectError) {
        if error.is_refused_login() {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// A connection was made.
    pub fn on_success(&mut self) {
        self.refused = 0;
    }

    /// Whether there is no use in trying again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.refused >= self.most
    }
}

/// Refusals of credentials that nobody can change while the program runs: some 40 s.
const FIXED: u32 = 15;
/// Of credentials in files: some 4 min.
const CHANGING: u32 = 70;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tls_error::TlsError;

    fn refusals_until_over(address: &Address, error: &ConnectError) -> u32 {
        let mut patience = Patience::with(address);
        (1..1000)
            .find(|_| {
                patience.on_failure(error);
                patience.is_over()
            })
            .unwrap_or(u32::MAX)
    }

    #[test]
    fn refusals_are_borne_for_a_while_and_longer_where_the_credentials_may_change() {
        let fixed = Address::new("h", 1, "u", "p");
        let refused = ConnectError::Credentials { address: fixed.to_string(), user: "u".to_owned() };
        assert_eq!(refusals_until_over(&fixed, &refused), FIXED);
        let untrusted = ConnectError::tls(&fixed, TlsError::UnknownAuthority);
        assert_eq!(refusals_until_over(&fixed, &untrusted), FIXED);
        assert_eq!(refusals_until_over(&fixed.clone().with_password_file("f"), &refused), CHANGING);
    }

    #[test]
    fn an_unreachable_node_neither_counts_nor_starts_the_count_anew() {
        let address = Address::new("h", 1, "u", "p");
        let gone = ConnectError::no_broker(&address, Arc::new(std::io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(refusals_until_over(&address, &gone), u32::MAX);
        let refused = ConnectError::Credentials { address: address.to_string(), user: "u".to_owned() };
        let mut patience = Patience::with(&address);
        for _ in 0..FIXED {
            assert!(!patience.is_over());
            patience.on_failure(&refused);
            patience.on_failure(&gone);
        }
        assert!(patience.is_over());
        patience.on_success();
        assert!(!patience.is_over());
    }
}
