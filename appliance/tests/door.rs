//! Who is kept out, and what those who are in may not do.

mod common;

use std::sync::Arc;

use common::*;
use hoidla_crypto::{Secret, envelope::CustodianKeys, keys::ReaderKeys};
use hoidla_door::{DoorError, Identity, Target};
use hoidla_format::{Hash32, frame::Chain};
use hoidla_protocol::{AppendHead, Code, Handle, Request, Response};
use rustls::{NamedGroup, crypto::aws_lc_rs};

/// The reason for which the door stayed shut.
async fn kept_out(running: &Running, identity: &Identity) -> String {
    match running.enter(identity).await {
        Err(DoorError::NotAdmitted(why)) => why.to_owned(),
        Err(other) => panic!("kept out for another reason: {other}"),
        Ok(_) => panic!("let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_stay_outside_and_are_told_why() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let other = Home::new("otherland");
    assert!(kept_out(&running, &other.good_agent("land").door).await.contains("another site's"));
    assert!(kept_out(&running, &e.home.agent("land", "late", (-7200, -3600)).door).await.contains("expired"));
    assert!(kept_out(&running, &e.home.agent("land", "early", (3600, 7200)).door).await.contains("not valid yet"));
    assert!(kept_out(&running, &e.home.agent("land", "dismissed", (-3600, 3600)).door).await.contains("revokes"));
    assert!(kept_out(&running, &e.home.good_agent("sea").door).await.contains("a dataset that the site file doesn't have"));
    assert!(kept_out(&running, &Identity::nobody()).await.contains("none was sent"));
    let stranger = CustodianKeys::from_seed(&Secret::random());
    let alpha = Identity::own(&name("alpha"), door_key(stranger.signing_key())).unwrap();
    assert!(kept_out(&running, &alpha).await.contains("no roster"), "a name alone lets nobody in");
    let reader = ReaderKeys::from_seed(&Secret::random());
    let restorer = Identity::own(&name("restorer"), door_key(&reader.signing)).unwrap();
    assert!(kept_out(&running, &restorer).await.contains("no grant"));
    // The controls: the right ones enter.
    running.enter(&e.home.good_agent("land").door).await.unwrap();
    running.enter(&e.home.custodian("alpha").1).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_refuses_another_appliance_and_the_door_another_key_exchange() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let wrong = [
        Target { appliance: name("rack-2"), ..running.target.clone() },
        Target { site: name("otherland"), ..running.target.clone() },
        Target { root: Home::new("testland").root, ..running.target.clone() },
    ];
    for target in wrong {
        let refused = hoidla_door::connect(&target, &agent.door).await;
        assert!(matches!(refused, Err(DoorError::WrongAppliance(_))), "{target:?}");
    }
    assert_eq!(negotiated(&running, aws_lc_rs::kx_group::X25519MLKEM768).await, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(negotiated(&running, aws_lc_rs::kx_group::X25519).await, None, "no classical key exchange");
    running.stop().await;
}

/// Which key exchange a client that offers only `group` ends up with.
async fn negotiated(running: &Running, group: &'static dyn rustls::crypto::SupportedKxGroup) -> Option<NamedGroup> {
    #[derive(Debug)]
    struct Anyone;
    impl rustls::client::danger::ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2".into()))
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let provider = rustls::crypto::CryptoProvider { kx_groups: vec![group], ..aws_lc_rs::default_provider() };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![hoidla_door::ALPN.to_vec()];
    let tcp = tokio::net::TcpStream::connect(&running.target.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = connector.connect(rustls::pki_types::ServerName::try_from("hoidla").unwrap(), tcp).await.ok()?;
    tls.get_ref().1.negotiated_key_exchange_group().map(|g| g.name())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_does_its_own_and_nothing_else() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let w = Writing::new(3);
    let not_allowed = |e: DoorError| assert_eq!(code(e), Code::NotAllowed);
    not_allowed(open_stream(&mut c, &name("people"), &w, Chain::EMPTY).await.unwrap_err());
    not_allowed(c.ask(&Request::List { dataset: name("people") }).await.unwrap_err());
    not_allowed(c.ask(&Request::Seal { grant: None }).await.unwrap_err());
    not_allowed(c.ask(&Request::Propose(b"x".to_vec())).await.unwrap_err());
    not_allowed(c.ask(&Request::Keys { grant: Hash32([0; 32]) }).await.unwrap_err());
    let (_, alpha) = e.home.custodian("alpha");
    let mut a = running.enter(&alpha).await.unwrap();
    not_allowed(a.ask(&Request::List { dataset: name("land") }).await.unwrap_err());
    not_allowed(open_stream(&mut a, &name("land"), &w, Chain::EMPTY).await.unwrap_err());
    assert_eq!(code(a.ask(&Request::Propose(b"no grant".to_vec())).await.unwrap_err()), Code::Grant);
    let unsigned = ReaderKeys::from_seed(&Secret::random());
    let note = grant(&e, &unsigned, 60, &["land"]).replace("a drill", "b drill");
    assert_eq!(code(a.ask(&Request::Propose(note.into())).await.unwrap_err()), Code::Grant, "changed after it was signed");
    let Response::Sealed { count } = a.ask(&Request::Seal { grant: None }).await.unwrap() else { panic!("not sealed") };
    assert_eq!(count, 0);
    let mut papers = 0;
    a.ask_parts(&Request::Papers, |part| {
        let Response::Paper(note) = part else { panic!("no paper") };
        let note = String::from_utf8(note).unwrap();
        let recovery = note.starts_with("hoidla = \"envelopes/") && note.contains("door = \"recovery\"");
        assert!(!recovery, "recovery envelopes never sit in the appliance");
        papers += 1;
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(papers, 10, "site, release, enrolment, identity, halves, roster, two vaults, two envelopes");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_a_store_behind_its_agent_is_an_alarm() {
    let e = Embassy::new(128 << 20);
    let running = e.start().await;
    let agent = e.home.good_agent("land");
    let mut c = running.enter(&agent.door).await.unwrap();
    let mut w = Writing::new(4);
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let first = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &first).await.unwrap();
    let at = w.chain.length;
    let second = agent.message(&mut w, b"second");
    append(&mut c, &opened, 1, at, &second).await.unwrap();
    drop(c);

    // The same bytes again are acknowledged again, others are a fork; both by hand, past our own client's checks.
    let mut c = running.enter(&agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    assert_eq!(opened.acknowledged, w.chain);
    let by_hand = |bytes: &[u8]| [&AppendHead { handle: opened.handle, epoch: 1, offset: at }.message(bytes.len())[..], bytes].concat();
    c.writer.append(&by_hand(&second), &[]).await.unwrap();
    c.writer.flush().await.unwrap();
    let again = c.reader.next().await.unwrap();
    assert!(matches!(again, Response::Acknowledged { before, .. } if before == w.chain.length), "{again:?}");
    assert!(matches!(c.reader.next().await.unwrap(), Response::Window { .. }));
    let mut forged = second.clone();
    *forged.last_mut().unwrap() ^= 1;
    c.writer.append(&by_hand(&forged), &[]).await.unwrap();
    c.writer.flush().await.unwrap();
    let Response::Refused(refused) = c.reader.next().await.unwrap() else { panic!("a fork was taken") };
    assert_eq!((refused.code, refused.handle), (Code::Fork, Some(opened.handle)));
    assert!(matches!(c.reader.next().await.unwrap(), Response::Window { .. }));

    // The agent knows more than the store: alarm, and the stream stays refused.
    let ahead = Chain { length: w.chain.length + 10, root: Hash32([9; 32]) };
    assert_eq!(code(open_stream(&mut c, &agent.dataset, &w, ahead).await.unwrap_err()), Code::Behind);
    assert_eq!(code(open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap_err()), Code::Behind);
    // Other bytes at the same length are a fork too.
    let mut v = Writing::new(5);
    let opened = open_stream(&mut c, &agent.dataset, &v, Chain::EMPTY).await.unwrap();
    let header = agent.header(&mut v, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &header).await.unwrap();
    let other = Chain { root: Hash32([8; 32]), ..v.chain };
    assert_eq!(code(open_stream(&mut c, &agent.dataset, &v, other).await.unwrap_err()), Code::Fork);
    let Response::Health(health) = c.ask(&Request::Health).await.unwrap() else { panic!("no health") };
    assert!(health.alarms >= 3, "{health:?}");
    assert_eq!((health.copies, health.current, health.streams), (2, 2, 2));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_protocol_is_put_out() {
    let e = Embassy::new(128 << 20);
    let settings = hoidlad::daemon::Settings { window: 2 << 20, windows: 4 << 20, ..Default::default() };
    let running = e.start_with(settings).await;
    let agent = e.home.good_agent("land");
    let w = Writing::new(6);

    // A gap, a handle nobody gave, a reply in the wrong direction, bytes that are no message.
    let messages: [Vec<u8>; 4] = [
        [&AppendHead { handle: Handle(1), epoch: 1, offset: 100 }.message(12)[..], &[0; 12]].concat(),
        [&AppendHead { handle: Handle(9), epoch: 1, offset: 0 }.message(12)[..], &[0; 12]].concat(),
        Response::Window { bytes: 1 }.encode(),
        vec![0xff; 64],
    ];
    for bytes in messages {
        let mut c = running.enter(&agent.door).await.unwrap();
        open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
        c.writer.append(&bytes, &[]).await.unwrap();
        c.writer.flush().await.unwrap();
        put_out(&mut c).await;
    }

    // More than the window.
    let mut c = running.enter(&agent.door).await.unwrap();
    assert!((1 << 20..=2 << 20).contains(&c.session.welcome().window));
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let frame = vec![7; 1 << 20];
    for n in 0..40u64 {
        let head = AppendHead { handle: opened.handle, epoch: 1, offset: n << 20 }.message(frame.len());
        if c.writer.append(&head, &frame).await.is_err() {
            break;
        }
    }
    put_out(&mut c).await;

    // The pool of windows is shared: four of at least a frame's size don't fit into 4 MiB.
    let mut inside = Vec::new();
    let refused = loop {
        let another = e.home.agent("land", &format!("agent-{}", inside.len()), (-3600, 3600));
        match running.enter(&another.door).await {
            Ok(c) => inside.push(c),
            Err(refused) => break refused,
        }
        assert!(inside.len() < 4);
    };
    assert!(!inside.is_empty() && refused.to_string().contains("memory"), "{refused}");
    assert_eq!(code(refused), Code::Busy);
    drop(inside);
    running.stop().await;
}

/// The peer says why, or only hangs up; in the end the connection is over.
async fn put_out(c: &mut hoidla_door::Connection) {
    for _ in 0..200 {
        match c.reader.next().await {
            Err(_) => return,
            Ok(Response::Refused(r)) => assert!(r.code.ends() || r.handle.is_some(), "{r}"),
            Ok(_) => {}
        }
    }
    panic!("the connection goes on");
}
