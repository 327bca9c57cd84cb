//! How a connection comes about, and why it does not: certificates, passwords, nodes; over real brokers.

mod authority;
mod credentials;
mod nodes;
mod programs;
mod reaching;
mod tls;
mod tls_client_certificate;
