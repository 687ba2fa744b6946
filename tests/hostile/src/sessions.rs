//! Both halves of a session against whatever order of messages a peer may choose.
//!
//! The input is a role or window, then steps: a byte that says what happens besides
//! (what the store answers, when window comes back), then a message as on the wire.
//! A model beside the session holds it to its promises.

use std::collections::HashMap;

use hoidla_format::{Bytes, Hash32, StreamId, frame::Chain};
use hoidla_protocol::{
    AppendHead, ClientSession, HEAD, Handle, Head, Open, Opened, Request, Response, Role, ServerSession, Type, Welcome,
    server::MOST_STREAMS,
};

/// Windows that the first byte chooses from.
const WINDOWS: [u32; 4] = [0, 4096, 1 << 20, 16 << 20];

fn role(byte: u8) -> Role {
    let name = |n: &str| n.parse().expect("a name");
    match byte % 3 {
        0 => Role::Agent { dataset: name("land"), agent: name("land-agent") },
        1 => Role::Custodian { name: name("alpha") },
        _ => Role::Reader { name: name("echo"), signing: Bytes(vec![2; 49]) },
    }
}

/// The next step: its byte, a message's head, and as much of a body as its head announces.
/// An append's frame is not in the input: only its length counts.
fn step<'a>(left: &mut &'a [u8]) -> Option<(u8, Head, &'a [u8])> {
    let (control, rest) = left.split_first()?;
    let (head, rest) = rest.split_first_chunk::<HEAD>()?;
    let head = Head::parse(head).ok()?;
    let len = if head.kind == Type::Append { AppendHead::LEN } else { head.len };
    let (body, rest) = rest.split_at_checked(len)?;
    *left = rest;
    Some((*control, head, body))
}

/// What the model knows of the appliance's half.
#[derive(Default)]
struct Model {
    /// Bytes of appends that were taken and not given back.
    used: u64,
    /// Where each live handle's stream ends; none once it was refused.
    ends: HashMap<Handle, Option<u64>>,
    handles: HashMap<StreamId, Handle>,
    last: u32,
}

/// The appliance's half; true if every message could be taken.
pub fn server_session(bytes: &[u8]) -> bool {
    let Some((first, mut left)) = bytes.split_first() else { return false };
    let window = WINDOWS[usize::from(first >> 4) % WINDOWS.len()];
    let mut session = ServerSession::new(role(*first), window);
    let (mut model, mut whole) = (Model::default(), true);
    while let Some((control, head, body)) = step(&mut left) {
        match session.accept(head) {
            Err(refused) if refused.code.ends() => return false,
            Err(_) => whole = false,
            Ok(()) if head.kind == Type::Append => {
                let Ok(append) = AppendHead::parse(body.try_into().expect("an append's head")) else { return false };
                let frame = head.len - AppendHead::LEN;
                model.used += frame as u64;
                assert!(model.used <= window.into(), "never more than the window");
                let Ok(taken) = session.append(&append, frame) else { return false };
                model.appended(&append, frame, taken.is_some());
                if control & 1 == 1 {
                    assert_eq!(session.refuse(append.handle), taken.is_some(), "a refusal is told once");
                    model.ends.insert(append.handle, None);
                }
                if control & 2 == 2 {
                    session.give_back(frame as u64);
                    model.used -= frame as u64;
                }
            }
            Ok(()) => {
                let Ok(request) = Request::parse(head.kind, body) else { return false };
                assert!(session.role().may_send(request.kind()), "only what the role may send");
                if let Request::Open(open) = request {
                    whole &= session.may_name(&open.dataset).is_ok() && model.open(&mut session, &open, control);
                }
            }
        }
    }
    whole && left.is_empty()
}

impl Model {
    fn appended(&mut self, append: &AppendHead, frame: usize, taken: bool) {
        let end = self.ends.get_mut(&append.handle).expect("only open streams take appends");
        assert_eq!(end.is_some(), taken, "a refused stream takes nothing, another does");
        if let Some(end) = end {
            assert!(append.offset <= *end, "no gaps");
            *end += if append.offset == *end { frame as u64 } else { 0 };
        }
    }

    /// The store knows of the stream what the peer does, or what the control byte makes up.
    fn open(&mut self, session: &mut ServerSession, open: &Open, control: u8) -> bool {
        let epoch = if open.last.length == 0 { 0 } else { [1, 7, u32::MAX - 1, u32::MAX][usize::from(control >> 2) % 4] };
        let opened = Opened { handle: Handle(0), epoch, closed: control & 0x80 != 0 && epoch > 0, acknowledged: open.last };
        let Ok(opened) = session.opened(open.dataset.clone(), open.stream, open.generation, opened) else {
            assert!(self.ends.len() >= MOST_STREAMS, "there was room");
            return false;
        };
        assert!(opened.handle.0 > self.last, "handles are never given twice");
        self.last = opened.handle.0;
        if let Some(former) = self.handles.insert(open.stream, opened.handle) {
            self.ends.remove(&former);
        }
        self.ends.insert(opened.handle, Some(open.last.length));
        assert!(self.ends.len() <= MOST_STREAMS);
        true
    }
}

/// The agent's half; true if nothing that the appliance said was a lie.
pub fn client_session(bytes: &[u8]) -> bool {
    let Some((first, mut left)) = bytes.split_first() else { return false };
    let name = |n: &str| n.parse().expect("a name");
    let welcome = Welcome {
        site: name("lux"),
        appliance: name("lux-1"),
        site_hash: Hash32([0; 32]),
        site_serial: 1,
        release: name("drill"),
        development: true,
        window: WINDOWS[usize::from(*first) % WINDOWS.len()],
    };
    let most = u64::from(welcome.window);
    let mut session = ClientSession::new(welcome);
    while let Some((&control, rest)) = left.split_first() {
        // What we do ourselves is sound; what comes is not.
        if control & 0x80 != 0 {
            left = rest;
            let (handle, frame) = (Handle(u32::from(control & 7)), 12 << (control >> 3 & 15));
            if let Some((_, sent, _)) = session.stands(handle).filter(|_| session.may_append(frame)) {
                session.append(handle, 1, sent, frame);
            }
            continue;
        }
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else { return false };
        let Ok(head) = Head::parse(head) else { return false };
        let Some((body, rest)) = rest.split_at_checked(head.len) else { return false };
        left = rest;
        let Ok(response) = Response::parse(head.kind, body) else { return false };
        let sound = match &response {
            Response::Opened(opened) => session.opened(StreamId([control; 16]), &Chain::EMPTY, opened),
            other => session.received(other),
        };
        if sound.is_err() {
            return false;
        }
        assert!(session.window() <= most, "the window is never more than at the welcome");
        if let Response::Acknowledged { handle, before, .. } = response {
            let (_, sent, acknowledged) = session.stands(handle).expect("its stream is open");
            assert!(acknowledged == before && before <= sent, "only what was sent is acknowledged");
        }
    }
    true
}

/// Whole sessions of each role.
pub fn server_seeds() -> Vec<Vec<u8>> {
    let land: hoidla_format::Name = "land".parse().expect("a name");
    let open = |stream, length| {
        let last = Chain { length, root: Hash32([u8::from(length > 0); 32]) };
        Request::Open(Open { dataset: land.clone(), stream: StreamId([stream; 16]), generation: 1, last }).encode()
    };
    let append = |handle, epoch, offset, frame| AppendHead { handle: Handle(handle), epoch, offset }.message(frame).to_vec();
    let session = |first: u8, steps: &[(u8, Vec<u8>)]| {
        let steps = steps.iter().flat_map(|(control, message)| [&[*control], &message[..]].concat());
        std::iter::once(first).chain(steps).collect::<Vec<u8>>()
    };
    vec![
        session(0x30, &[(0, open(1, 0)), (0, append(1, 1, 0, 5000)), (2, append(1, 1, 5000, 1 << 20)), (0, Request::Health.encode())]),
        session(0x31, &[(0, Request::Papers.encode()), (0, Request::Seal { grant: None }.encode())]),
        session(0x32, &[(0, Request::List { dataset: land.clone() }.encode()), (0, Request::Keys { grant: Hash32([3; 32]) }.encode())]),
        session(
            0x21,
            &[(0, open(1, 100)), (3, append(1, 1, 100, 4000)), (2, append(1, 1, 0, 4000)), (4, open(1, 900)), (2, append(2, 7, 900, 64))],
        ),
        session(0x30, &[(0x84, open(2, 50)), (2, append(1, 8, 50, 12)), (8, open(3, 1)), (2, append(2, u32::MAX, 1, 12))]),
    ]
}

/// What an honest appliance says, and what we do in between.
pub fn client_seeds() -> Vec<Vec<u8>> {
    let opened = |handle, length, epoch| {
        let acknowledged = Chain { length, root: Hash32([u8::from(length > 0); 32]) };
        Response::Opened(Opened { handle: Handle(handle), epoch, closed: false, acknowledged }).encode()
    };
    let kept = |handle, before| Response::Acknowledged { handle: Handle(handle), before, log_size: 1 }.encode();
    let window = |bytes| Response::Window { bytes }.encode();
    let session = |first: u8, steps: &[&[u8]]| [&[first], &steps.concat()[..]].concat();
    let (step, refused) = (|m: Vec<u8>| [&[0][..], &m].concat(), hoidla_protocol::Refused::new(hoidla_protocol::Code::Full, "full"));
    vec![
        session(2, &[&step(opened(1, 0, 0)), &[0x81, 0x89], &step(kept(1, 12)), &step(window(36)), &step(kept(1, 36))]),
        session(
            1,
            &[&step(opened(1, 90, 2)), &step(opened(2, 0, 0)), &[0x82], &step(Response::Refused(refused.about(Handle(2))).encode())],
        ),
    ]
}
