//! Both halves of a session against each other, and each against a liar.

use hoidla_format::{Bytes, Hash32, Name, StreamId, frame::Chain};
use hoidla_protocol::{client::Broken, server::MOST_STREAMS, *};
use proptest::prelude::*;

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

fn agent() -> Role {
    Role::Agent { dataset: name("land"), agent: name("land-agent") }
}

fn custodian() -> Role {
    Role::Custodian { name: name("alpha") }
}

fn reader() -> Role {
    Role::Reader { name: name("restorer"), signing: Bytes(vec![2; 49]) }
}

fn welcome(window: u32) -> Welcome {
    Welcome {
        site: name("testland"),
        appliance: name("rack-1"),
        site_hash: Hash32([0; 32]),
        site_serial: 1,
        release: name("drill"),
        development: true,
        window,
    }
}

fn at(length: u64, epoch: u32, closed: bool) -> Opened {
    let root = Hash32([u8::from(length > 0); 32]);
    Opened { handle: Handle(0), epoch, closed, acknowledged: Chain { length, root } }
}

fn open(server: &mut ServerSession, stream: u8, opened: Opened) -> Opened {
    server.opened(name("land"), StreamId([stream; 16]), 1, opened).unwrap()
}

#[test]
fn roles_are_told_apart_by_the_head_alone() {
    use Type::*;
    let may = |role: &Role| Type::ALL.iter().copied().filter(|t| role.may_send(*t)).collect::<Vec<_>>();
    assert_eq!(may(&agent()), [Open, Append, List, Health, Papers, Extend, Prove, Witness, Update]);
    assert_eq!(may(&custodian()), [Health, Papers, Propose, Approve, Seal, Extend, Update]);
    assert_eq!(may(&reader()), [List, Health, Papers, Keys, Read, Extend]);
    for role in [agent(), custodian(), reader()] {
        let mut session = ServerSession::new(role.clone(), 1 << 20);
        for kind in Type::ALL {
            let head = Head { kind: *kind, len: kind.bounds().0 };
            assert_eq!(session.accept(head).is_ok(), role.may_send(*kind), "{role:?} {kind:?}");
        }
    }
    let session = ServerSession::new(agent(), 0);
    assert!(session.may_name(&name("land")).is_ok());
    assert_eq!(session.may_name(&name("people")).unwrap_err().code, Code::NotAllowed);
    assert!(ServerSession::new(custodian(), 0).may_name(&name("land")).is_err());
}

#[test]
fn the_window_is_a_bound_that_the_head_meets() {
    let mut session = ServerSession::new(agent(), 1000);
    let head = Head { kind: Type::Append, len: AppendHead::LEN + 600 };
    session.accept(head).unwrap();
    let refused = session.accept(head).unwrap_err();
    assert!(refused.code == Code::Order && refused.code.ends());
    let mut session = ServerSession::new(agent(), 1000);
    session.accept(head).unwrap();
    session.give_back(600);
    session.accept(head).unwrap();
    assert!(ServerSession::new(agent(), 599).accept(head).is_err());
}

#[test]
fn appends_come_without_gaps_and_epochs_only_rise() {
    let mut s = ServerSession::new(agent(), 1 << 30);
    let o = open(&mut s, 1, at(0, 0, false));
    let head = |epoch, offset| AppendHead { handle: o.handle, epoch, offset };
    assert_eq!(s.append(&head(2, 0), 100).unwrap_err().code, Code::Order, "a stream begins with epoch 1");
    s.append(&head(1, 0), 100).unwrap().unwrap();
    assert_eq!(s.append(&head(1, 101), 100).unwrap_err().code, Code::Order, "a gap");
    s.append(&head(1, 100), 100).unwrap().unwrap();
    s.append(&head(1, 0), 100).unwrap().expect("sent again: the store compares");
    assert_eq!(s.append(&head(3, 200), 100).unwrap_err().code, Code::Order, "an epoch left out");
    s.append(&head(2, 200), 100).unwrap().unwrap();
    assert_eq!(s.append(&head(1, 300), 100).unwrap_err().code, Code::Order, "an epoch that is over");
    assert_eq!(s.append(&AppendHead { handle: Handle(7), epoch: 1, offset: 0 }, 1).unwrap_err().code, Code::Order);

    // Closed by an opening: only the next epoch goes on.
    let o = open(&mut s, 2, at(500, 4, true));
    let head = |epoch| AppendHead { handle: o.handle, epoch, offset: 500 };
    assert!(s.append(&head(4), 10).is_err());
    s.append(&head(5), 10).unwrap().unwrap();

    // Refused: what is still under way is dropped, and told once.
    assert!(s.refuse(o.handle));
    assert!(!s.refuse(o.handle));
    assert_eq!(s.append(&AppendHead { handle: o.handle, epoch: 5, offset: 510 }, 10).unwrap(), None);
    let again = open(&mut s, 2, at(510, 5, false));
    assert_ne!(again.handle, o.handle);
    assert!(s.append(&AppendHead { handle: o.handle, epoch: 5, offset: 510 }, 10).is_err(), "the former handle is gone");
}

#[test]
fn a_connection_has_few_streams() {
    let mut s = ServerSession::new(agent(), 1);
    for n in 0..MOST_STREAMS {
        open(&mut s, n as u8, at(0, 0, false));
    }
    let more = s.opened(name("land"), StreamId([99; 16]), 1, at(0, 0, false));
    assert_eq!(more.unwrap_err().code, Code::Busy);
    open(&mut s, 3, at(0, 0, false)); // the same one again takes no more room
}

#[test]
fn a_client_believes_no_liar() {
    let stream = StreamId([1; 16]);
    let fresh = || {
        let mut c = ClientSession::new(welcome(1000));
        let o = Opened { handle: Handle(1), ..at(0, 0, false) };
        c.opened(stream, &Chain::EMPTY, &o).unwrap();
        c.append(Handle(1), 1, 0, 400);
        c
    };
    let kept = |handle, before| Response::Acknowledged { handle: Handle(handle), before, log_size: 1 };
    fresh().received(&kept(1, 400)).unwrap();
    for lie in [kept(1, 401), kept(2, 400), Response::Welcome(welcome(1)), Response::Window { bytes: 401 }] {
        assert!(matches!(fresh().received(&lie), Err(Broken::Protocol(_))), "{lie:?}");
    }
    let mut c = fresh();
    c.received(&kept(1, 400)).unwrap();
    assert!(c.received(&kept(1, 300)).is_err(), "acknowledgements never go back");
    let about = |h| Response::Refused(Refused::new(Code::Full, "full").about(Handle(h)));
    c.received(&about(1)).unwrap();
    assert_eq!(c.stands(Handle(1)), None);
    assert!(c.received(&about(1)).is_err());

    // Opening: never behind what was acknowledged, never other bytes.
    let mut c = ClientSession::new(welcome(0));
    let last = Chain { length: 100, root: Hash32([1; 32]) };
    let opened =
        |length, root, epoch| Opened { handle: Handle(2), epoch, closed: false, acknowledged: Chain { length, root: Hash32([root; 32]) } };
    assert!(c.opened(stream, &last, &opened(99, 1, 1)).is_err());
    assert!(c.opened(stream, &last, &opened(100, 2, 1)).is_err());
    assert!(c.opened(stream, &last, &opened(100, 1, 0)).is_err());
    c.opened(stream, &last, &opened(100, 1, 1)).unwrap();
    assert!(c.opened(stream, &last, &opened(100, 1, 1)).is_err(), "one handle twice");
}

proptest! {
    /// Whatever sizes, and whenever window comes back: two honest sides never refuse each other.
    #[test]
    fn honest_sides_agree(sizes in proptest::collection::vec((12usize..5000, any::<bool>()), 1..200)) {
        let window = 10_000;
        let mut server = ServerSession::new(agent(), window);
        let mut client = ClientSession::new(welcome(window));
        let opened = open(&mut server, 1, at(0, 0, false));
        client.opened(StreamId([1; 16]), &Chain::EMPTY, &opened).unwrap();
        let (mut offset, mut under_way) = (0u64, std::collections::VecDeque::new());
        for (len, drain) in sizes {
            while !client.may_append(len) || (drain && !under_way.is_empty()) {
                let (end, bytes): (u64, usize) = under_way.pop_front().unwrap();
                server.give_back(bytes as u64);
                client.received(&Response::Acknowledged { handle: opened.handle, before: end, log_size: 1 }).unwrap();
                client.received(&Response::Window { bytes: bytes as u32 }).unwrap();
            }
            let sent = client.append(opened.handle, 1, offset, len);
            let head = Head::parse(sent.first_chunk().unwrap()).unwrap();
            server.accept(head).unwrap();
            let append = AppendHead::parse(sent[HEAD..].first_chunk().unwrap()).unwrap();
            prop_assert!(server.append(&append, head.len - AppendHead::LEN).unwrap().is_some());
            offset += len as u64;
            under_way.push_back((offset, len));
        }
    }
}
