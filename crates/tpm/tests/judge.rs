//! tpm2-tools as an independent judge of names and policy digests.

mod common;

use common::{PCRS, World};
use hoidla_verify::{Policy, RELEASE_COUNTER, TpmName};

#[test]
fn names_and_policies_are_the_tpms_own() {
    let w = World::new();
    let file = |name: &str| w.state.path().join(name);
    let release = w.release(3, &[1]);
    let ticket = release.vault(&common::dataset(), 1).unwrap();

    // The release key's name, by a TPM that loads it.
    let public = w.public().public().marshal();
    std::fs::write(file("key.pub"), [&(public.len() as u16).to_be_bytes()[..], &public].concat()).unwrap();
    w.tool("tpm2_loadexternal", &["-C", "o", "-u", "key.pub", "-c", "key.ctx", "-n", "key.name"]);
    w.tool("tpm2_flushcontext", &["-t"]);
    assert_eq!(std::fs::read(file("key.name")).unwrap(), w.public().name().0);

    // The counter's name.
    let text = w.tool("tpm2_nvreadpublic", &["0x1804801"]);
    let hex: String = TpmName::of_counter(RELEASE_COUNTER).0.iter().map(|b| format!("{b:02x}")).collect();
    assert!(String::from_utf8_lossy(&text.stdout).contains(&hex));

    // The whole policy of a half, step by step in a trial session.
    std::fs::write(file("epoch"), 3u64.to_be_bytes()).unwrap();
    std::fs::write(file("reference"), ticket.reference.0).unwrap();
    let pcrs = w.tpm.pcr_read(&PCRS).unwrap();
    w.tool("tpm2_startauthsession", &["-S", "s"]);
    w.tool("tpm2_policypcr", &["-S", "s", "-l", "sha256:4,11,12,13", "-L", "digest"]);
    assert_eq!(std::fs::read(file("digest")).unwrap(), Policy::new().pcr(&pcrs).digest().0);
    w.tool("tpm2_policynv", &["-S", "s", "-i", "epoch", "-L", "digest", "0x1804801", "ule"]);
    assert_eq!(std::fs::read(file("digest")).unwrap(), release.release().policy.0);
    w.tool("tpm2_policyauthorize", &["-S", "s", "-i", "digest", "-q", "reference", "-n", "key.name", "-L", "digest"]);
    assert_eq!(std::fs::read(file("digest")).unwrap(), w.public().policy(&ticket.reference).digest().0);
    w.tool("tpm2_policyauthvalue", &["-S", "s", "-L", "digest"]);
    assert_eq!(std::fs::read(file("digest")).unwrap(), w.public().half_policy(&ticket.reference).digest().0);
}
