//! What answers on the machine's networks: the door on one, the host's port on the other.

use std::{io::Read, net::TcpStream, time::Duration};

use hoidla_journey::{soft_tpm::free_port, stage::DATASET};
use hoidla_vm::{
    Wire,
    embassy::HEALTH,
    machine::{AT_HOST, GUEST, door_wire, host_wire},
};

use crate::{serves, shared};

/// Ports of UDP at which programs often are, and the door's.
const UDP: [u16; 4] = [67, 123, 161, 5353];

#[test]
fn one_port_is_open_and_another_for_the_host_on_its_own_network() {
    let shared = shared();
    let embassy = shared.turn();
    let mut spare = embassy.spare("ports").unwrap();
    let (door, page) = (embassy.port().unwrap(), free_port().unwrap());
    spare.parts.wires = true;
    spare.parts.host_ports = vec![(page, HEALTH)];
    // The host's port is there to be found: a sweep that overlooked it would overlook others.
    let machine = serves(&embassy, &spare);
    assert!(!embassy.is_shut(&spare).unwrap(), "what tells that a machine is shut must see that one isn't");

    // Whoever connects is told how the machine is, and of no dataset.
    machine.wait("Type seal and press Enter").unwrap();
    let mut peer = TcpStream::connect(("127.0.0.1", page)).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut told = String::new();
    peer.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.0 200 OK") && told.contains("SEALED") && told.contains("\nhoidla_sealed 1"), "{told}");
    assert!(!told.contains(DATASET), "{told}");

    machine.only_wires().unwrap();
    for (wire, own, here, elsewhere, port, other) in [
        (host_wire(&spare.parts), [10, 0, 3, 77], AT_HOST, GUEST, HEALTH, door),
        (door_wire(&spare.parts), [10, 0, 2, 77], GUEST, AT_HOST, door, HEALTH),
    ] {
        let mut wire = Wire::plug(&wire, own.into()).unwrap();
        let card = wire.who_has(here).unwrap().expect("the machine is on its network");
        let found = wire.open_ports(card, here, 1..=u16::MAX).unwrap();
        assert_eq!(found.open, [port].into(), "exactly that one is open at {here}");
        assert_eq!(found.closed.len(), 65_534, "all others say that they are closed; silent: {:?}", found.silent);
        // One network's address is not to be had by the other network's card.
        assert_eq!(wire.who_has(elsewhere).unwrap(), None);
        assert!(wire.open_ports(card, elsewhere, [port, other].into_iter()).unwrap().open.is_empty());
        for port in UDP {
            assert!(wire.udp_is_closed(card, here, port).unwrap(), "UDP {port}");
        }
        assert_eq!(wire.ipv6(card).unwrap(), None, "it speaks IPv6");
    }
}
