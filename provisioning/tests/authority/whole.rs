//! The whole work, from nothing to an agent, and what lies in its folder.

use crate::stage::*;

#[test]
fn from_nothing_to_an_agent() {
    let stage = Stage::signed();
    let (home, key) = (&stage.home, stage.authority());
    let dealt = stage.deal(&[], Some(1), false).unwrap();
    assert_eq!((dealt.vaults.len(), dealt.tested), (10, 10 * (3 + 4)));
    let roster: Roster = open(&home.roster(&name("main")), &key);
    for vault in &dealt.vaults {
        let (d, e) = (&vault.dataset, vault.vault_epoch);
        let signed = open_signed::<Vault>(&home.vault(d, e), &key).unwrap();
        assert_eq!((e, signed.statement.roster), (1, hash(&write(&roster))));
        for path in [home.envelopes(d, e), home.recovery_envelopes(d, e)] {
            assert_eq!(open::<Envelopes>(&path, &key).vault, signed.hash);
        }
        assert_eq!(open::<RecoveryWrap>(&home.recovery_wrap(d, e), &key).vault, signed.hash);
    }
    let released = release::sign(home, &name("drill"), &stage.pcrs(), &[], &stage.ours()).unwrap();
    assert_eq!((released.epoch, released.vaults.len()), (7, 10), "not below the TPM's counter");
    releases::check(&released, &stage.keys().release_public()).unwrap();

    enrol::enrol(home, &name("lux-1"), &stage.ours()).unwrap();
    let enrolment: Enrolment = open(&home.enrolment(&name("lux-1")), &key);
    assert_eq!(enrolment.proof, Proof::TrustedOnFirstUse);
    assert_eq!(enrolment.halves, home.halves_of(&name("lux-1"), &key).unwrap().unwrap().hash);
    assert_eq!(enrolment.identity, hash(&write(&stage.identity(1).1)));

    let agent_passphrase = PassphraseSource { passphrase_file: Some(stage.folder.path().join("passphrase")) };
    let request = agent::Request { dataset: name("population"), agent: name("push-1"), days: 30, agent_passphrase };
    let (folder, certificate) = agent::issue(home, &request, &stage.ours()).unwrap();
    let secret = KeyFile::parse(&fs::read(folder.join("agent.key")).unwrap()).unwrap().open(PASSPHRASE).unwrap();
    assert_eq!(AgentKeys::from_seed(&secret).signing.verifying_key().to_sec1(), certificate.key.0);
    assert_eq!(open::<AgentCertificate>(&folder.join("agent.txt"), &key), certificate);
    assert!(folder.join("agent.der").exists() && folder.join("site.txt").exists() && folder.join("vault-population-1.txt").exists());
    assert!(told(agent::issue(home, &request, &stage.ours())).contains("nothing was overwritten"));
}

#[test]
fn nothing_secret_lies_in_clear() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    let open = |role| KeyFile::parse(&fs::read(stage.home.key(role)).unwrap()).unwrap().open(PASSPHRASE).unwrap();
    let (master, release) = (open(Role::Authority), open(Role::Release));
    let scalar = release_scalar(&release);
    let ring = AuthorityKeys::from_seed(&master);
    let pkcs8 = [ring.statements.to_pkcs8(), ring.door.to_pkcs8()];
    // A P-384 scalar begins 36 bytes into PKCS#8 as RFC 5915 writes it; any 32 bytes of the middle are telling.
    let secrets: Vec<&[u8]> = vec![master.expose(), release.expose(), scalar.expose(), &pkcs8[0][40..72], &pkcs8[1][40..72]];
    let mut looked = 0;
    let mut folders = vec![stage.folder.path().join("home")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            looked += 1;
            for secret in &secrets {
                assert!(!bytes.windows(secret.len()).any(|w| w == *secret), "{} holds a secret", path.display());
            }
        }
    }
    assert!(looked > 8, "{looked} files");
}

#[test]
fn the_wrong_passphrase_or_another_s_keys_sign_nothing() {
    let stage = Stage::signed();
    let before = fs::read(stage.home.site()).unwrap();
    stage.edit("serial = 1", "serial = 2");
    assert!(told(site::sign(&stage.home, &stage.passphrase("drei blaue Schiffe"))).contains("passphrase doesn't open"));
    let other = Stage::fresh();
    fs::copy(other.home.key(Role::Authority), stage.home.key(Role::Authority)).unwrap();
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("not the key in keys/authority.key"));
    assert!(told(stage.deal(&["population"], Some(1), false)).contains("not the one in the site file"));
    fs::copy(stage.home.key(Role::Release), stage.home.key(Role::Authority)).unwrap();
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("the key of the home authority belongs here"));
    assert_eq!(fs::read(stage.home.site()).unwrap(), before);
    assert!(!stage.home.vault(&name("population"), 1).exists());
}

#[test]
fn a_revoked_agent_gets_no_bundle() {
    let stage = Stage::signed();
    stage.deal(&["population"], Some(1), false).unwrap();
    stage.edit("revoked_agents = []", "revoked_agents = [\"push-1\"]");
    stage.edit("serial = 1", "serial = 2");
    site::sign(&stage.home, &stage.ours()).unwrap();
    let issue = |dataset: &str, agent: &str| {
        let agent_passphrase = PassphraseSource { passphrase_file: Some(stage.folder.path().join("passphrase")) };
        let request = agent::Request { dataset: name(dataset), agent: name(agent), days: 30, agent_passphrase };
        agent::issue(&stage.home, &request, &stage.ours())
    };
    assert!(told(issue("population", "push-1")).contains("was revoked"));
    assert!(told(issue("business", "push-2")).contains("no vault to seal to"));
    assert!(told(issue("nosuch", "push-2")).contains("no dataset nosuch"));
}
