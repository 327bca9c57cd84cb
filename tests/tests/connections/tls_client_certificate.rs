//! A broker that lets in only who shows a certificate.

use correio_broker_config::{TlsError, TlsSettings};
use correio_lab::broker::{NodeOptions, for_each_own};

use crate::{
    authority::{Authority, Certificate},
    reaching::{over_tls, reach, refusal},
};

fn showing(settings: &TlsSettings, shown: &Certificate) -> TlsSettings {
    settings.clone().with_client_certificate(&shown.certificate, &shown.key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_demands_a_certificate_lets_in_who_has_a_good_one_and_the_others_hear_why_not() {
    let authority = Authority::new("known");
    let stranger = Authority::new("unknown");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, true));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let bare = TlsSettings::new().with_ca_file(authority.file());
        let client = authority.issue(&["client"]);
        let over_tls = |settings| over_tls(node).with_tls(settings);
        reach(over_tls(showing(&bare, &client))).await.unwrap();

        let without = refusal(over_tls(bare.clone())).await;
        assert!(matches!(without, TlsError::ClientCertificateWanted), "{without:?}");

        let strange = refusal(over_tls(showing(&bare, &stranger.issue(&["client"])))).await;
        assert!(matches!(strange, TlsError::ClientCertificateRefused { .. }), "{strange:?}");

        let expired = refusal(over_tls(showing(&bare, &authority.issue_expired(&["client"])))).await;
        assert!(matches!(expired, TlsError::ClientCertificateRefused { .. }), "{expired:?}");

        let another = authority.issue(&["client"]);
        let mixed = Certificate { certificate: client.certificate.clone(), key: another.key };
        let mixed = refusal(over_tls(showing(&bare, &mixed))).await;
        assert!(matches!(mixed, TlsError::KeyDoesNotMatch { .. }), "{mixed:?}");

        let swapped = Certificate { certificate: client.key.clone(), key: client.certificate.clone() };
        let swapped = refusal(over_tls(showing(&bare, &swapped))).await;
        assert!(matches!(swapped, TlsError::NothingInFile { .. }), "{swapped:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_was_renewed_in_its_file_is_shown_from_the_next_connection_on() {
    let authority = Authority::new("known");
    let certificate = authority.issue(&["localhost"]);
    let tls = Some(authority.listener(&certificate, true));
    for_each_own(NodeOptions { tls, ..NodeOptions::default() }, async |node| {
        let shown = authority.issue_expired(&["client"]);
        let settings = showing(&TlsSettings::new().with_ca_file(authority.file()), &shown);
        let connections = crate::reaching::connections(over_tls(node).with_tls(settings), crate::reaching::DEADLINE);
        // The broker's alert can be lost with the reset that follows it: then it is tried again.
        let error = connections.channel_within(5 * crate::reaching::DEADLINE).await.unwrap_err();
        assert!(error.is_permanent(), "{error}");
        let renewed = authority.issue(&["client"]);
        std::fs::copy(renewed.certificate, &shown.certificate).unwrap();
        std::fs::copy(renewed.key, &shown.key).unwrap();
        connections.channel().await.unwrap().close().await.unwrap();
    })
    .await;
}
