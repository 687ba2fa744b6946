//! What an interposer on the bus sees, and what it can change.

mod common;

use common::{AUTH, SECRET, World, bus::Bus, dataset, refusal, secret};
use hoidla_tpm::{Counter, Tpm, TpmError};

const UNSEAL: u32 = 0x15E;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const NV_READ: u32 = 0x14E;
const POLICY_PASSWORD: u32 = 0x18C;
const POLICY_AUTH_VALUE: u32 = 0x16B;

/// A world whose every operation goes through an interposer.
fn watched() -> (World, Bus) {
    let mut w = World::new();
    let bus = Bus::before(w.swtpm.port());
    w.tpm = Tpm::open_pinned(&bus.tcti(), &w.tpm.srk().name()).unwrap();
    (w, bus)
}

#[test]
fn neither_half_nor_auth_value_is_seen_on_the_wire() {
    let (w, bus) = watched();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET);
    let commands = bus.commands();
    assert!(commands.contains(&UNSEAL) && commands.contains(&POLICY_AUTH_VALUE), "the interposer saw the unsealing itself");
    assert!(bus.saw(&w.public().name().0), "and what is public");
    for hidden in [SECRET, AUTH] {
        for part in hidden.chunks(8) {
            assert!(!bus.saw(part));
        }
    }
}

/// The same interposer finds both where sessions are neither salted nor encrypted.
#[test]
fn the_same_interposer_finds_what_is_sent_in_clear() {
    let (w, bus) = watched();
    let folder = w.state.path();
    std::fs::write(folder.join("secret"), SECRET).unwrap();
    let auth = std::str::from_utf8(&AUTH).unwrap();
    let tool = |tool: &str, args: &[&str]| {
        let out = common::tool_at(&bus.tcti(), folder, tool, args);
        assert!(out.status.success(), "{tool}: {}", String::from_utf8_lossy(&out.stderr));
        out
    };
    tool("tpm2_createprimary", &["-C", "o", "-c", "p.ctx"]);
    tool("tpm2_create", &["-C", "p.ctx", "-i", "secret", "-p", auth, "-u", "o.pub", "-r", "o.priv"]);
    tool("tpm2_flushcontext", &["-t"]);
    tool("tpm2_load", &["-C", "p.ctx", "-u", "o.pub", "-r", "o.priv", "-c", "o.ctx"]);
    tool("tpm2_flushcontext", &["-t"]);
    assert_eq!(tool("tpm2_unseal", &["-c", "o.ctx", "-p", auth]).stdout, SECRET);
    assert!(bus.saw(&SECRET) && bus.saw(&AUTH));
}

#[test]
fn the_password_variant_is_never_sent() {
    let (w, bus) = watched();
    let node = w.tpm.create_node_key(&w.public(), &w.node_ref()).unwrap().blob;
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    w.unseal(&blob, &release, 1).unwrap();
    w.tpm.sign_with_node(&node, &release, &[1; 32]).unwrap();
    assert!(w.tpm.unseal_half(&blob, &release, &dataset(), 1, &secret([3; 32])).is_err());
    assert!(!bus.commands().contains(&POLICY_PASSWORD));
}

#[test]
fn a_changed_answer_is_noticed_and_the_next_operation_works() {
    let (w, bus) = watched();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    for _ in 0..3 {
        bus.spoil_next_answer_to(UNSEAL);
        assert_eq!(refusal(w.unseal(&blob, &release, 1)), TpmError::Tampered);
        assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET, "on a context of its own");
    }
    assert_eq!(w.loaded(), "", "and nothing stays loaded");
}

#[test]
fn a_key_or_counter_that_the_interposer_changed_is_not_believed() {
    let (w, bus) = watched();
    bus.spoil_next_answer_to(CREATE);
    assert_eq!(refusal(w.tpm.create_node_key(&w.public(), &w.node_ref())), TpmError::Tampered);
    bus.spoil_next_answer_to(NV_READ);
    assert_eq!(refusal(w.tpm.counter(Counter::Release)), TpmError::Tampered);
    assert_eq!(w.tpm.counter(Counter::Release).unwrap(), 1);
}

/// The storage root key comes back unauthenticated: its name is what tells.
#[test]
fn a_storage_root_key_that_the_interposer_changed_is_not_salted_to() {
    let (w, bus) = watched();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    bus.spoil_next_answer_to(CREATE_PRIMARY);
    let before = bus.commands().len();
    assert!(w.unseal(&blob, &release, 1).is_err());
    assert!(!bus.commands()[before..].contains(&UNSEAL));
    assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET);
}
