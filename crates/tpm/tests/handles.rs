//! Nothing stays loaded: not over a thousand cycles, not after errors, not after a kill.

mod common;

use common::{SECRET, World, dataset, refusal, secret};
use hoidla_format::Hash32;
use hoidla_tpm::{Tpm, TpmError};

#[test]
fn a_thousand_cycles_leave_nothing_loaded() {
    let w = World::new();
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    let wrong = w.release_by(&hoidla_verify::ReleaseKey::generate().0, true, 1, &[1]);
    for cycle in 0..1000u32 {
        // Every fourth ends in one of the refusals, at different depths of an operation.
        match cycle % 16 {
            3 => assert_eq!(refusal(w.tpm.unseal_half(&blob, &release, &dataset(), 1, &secret([1; 32]))), TpmError::Auth),
            7 => assert_eq!(refusal(w.unseal(&blob, &wrong, 1)), TpmError::Policy),
            11 => assert!(w.tpm.import_half(&w.half(2), &w.public(), &w.vault_ref(1)).is_err()),
            15 => w.tpm.pcr_extend(15, &Hash32([2; 32])).unwrap(),
            _ => assert_eq!(w.unseal(&blob, &release, 1).unwrap().expose(), &SECRET),
        }
    }
    assert_eq!(w.loaded(), "");
}

#[test]
fn what_a_killed_predecessor_left_is_swept() {
    let w = World::new();
    let fill = || {
        for n in ["1", "2", "3"] {
            w.tool("tpm2_createprimary", &["-C", "o", "-c", n]);
            // A session that its program doesn't flush is saved by the tool; load it to leave it loaded.
            w.try_tool("tpm2_startauthsession", &["--policy-session", "-S", n]);
        }
    };
    fill();
    assert_ne!(w.loaded(), "", "the tools leave handles behind");
    let again = Tpm::open_pinned(w.swtpm.tcti(), &w.tpm.srk().name()).unwrap();
    assert_eq!(w.loaded(), "");
    let (blob, release) = (w.import(1), w.release(1, &[1]));
    assert!(again.unseal_half(&blob, &release, &dataset(), 1, &secret(common::AUTH)).is_ok());

    // Full again while we hold the TPM open: the failing operation sweeps, the next one works.
    fill();
    let first = w.unseal(&blob, &release, 1);
    assert!(first.is_ok() || w.unseal(&blob, &release, 1).is_ok());
    assert_eq!(w.loaded(), "");
}
