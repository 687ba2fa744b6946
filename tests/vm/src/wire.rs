//! A cable into one of the machine's networks: whole frames, made and read here.
//!
//! Promises: [`Wire::open_ports`] asks each port until it answers or has been silent five times,
//! and says which are open, closed and silent; so a port that a lost frame hid is not taken for a
//! closed one. It knows Ethernet, ARP, IPv4, TCP's first step, UDP and ICMP as far as that goes.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// A card's own address.
pub type Mac = [u8; 6];

const OWN: Mac = [2, 0, 0, 0, 0, 0x77];
const EVERYBODY: Mac = [0xff; 6];
/// The port that every question comes from.
const FROM: u16 = 40_000;
/// Ports that are asked at a time.
const AT_ONCE: usize = 512;
/// How often a silent port is asked.
const TIMES: u32 = 5;
/// How long the guest may be silent.
const SILENCE: Duration = Duration::from_millis(500);

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// See the module.
pub struct Wire {
    socket: UnixStream,
    heard: Receiver<Vec<u8>>,
    own: Ipv4Addr,
}

/// How ports answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Somebody listens there.
    pub open: BTreeSet<u16>,
    /// Nobody does, and the guest says so.
    pub closed: BTreeSet<u16>,
    /// Nothing came.
    pub silent: BTreeSet<u16>,
}

impl Wire {
    /// Into the socket that the machine has for this network; one's own address there.
    pub fn plug(socket: &Path, own: Ipv4Addr) -> Result<Self> {
        let socket = UnixStream::connect(socket).context("the machine has no such cable")?;
        let (told, heard) = channel();
        let (mut from, mut back) = (socket.try_clone()?, socket.try_clone()?);
        std::thread::spawn(move || {
            let mut length = [0; 4];
            while from.read_exact(&mut length).is_ok() {
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                if from.read_exact(&mut frame).is_err() {
                    break;
                }
                // Else the guest forgets the way here.
                if let Some(answer) = here(&frame, own) {
                    _ = send(&mut back, &answer);
                }
                if told.send(frame).is_err() {
                    break;
                }
            }
        });
        Ok(Self { socket, heard, own })
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        Ok(send(&mut self.socket, frame)?)
    }

    /// Hears frames until one fits, or nothing came for a while.
    fn hear<T>(&self, mut fits: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + 4 * SILENCE;
        while Instant::now() < until {
            if let Some(found) = fits(&self.heard.recv_timeout(SILENCE).ok()?) {
                return Some(found);
            }
        }
        None
    }

    /// Whose address that is, if anybody on this network says so.
    pub fn who_has(&mut self, address: Ipv4Addr) -> Result<Option<Mac>> {
        for _ in 0..TIMES {
            self.send(&arp(1, EVERYBODY, self.own, address))?;
            let answer = self.hear(|f| said(f, 2).filter(|said| said[14..18] == address.octets())?[8..14].first_chunk().copied());
            if answer.is_some() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// Knocks at TCP ports of an address, by way of a card.
    pub fn open_ports(&mut self, card: Mac, address: Ipv4Addr, ports: impl Iterator<Item = u16>) -> Result<Ports> {
        let mut out = Ports { silent: ports.collect(), ..Ports::default() };
        for _ in 0..TIMES {
            for some in out.silent.iter().copied().collect::<Vec<_>>().chunks(AT_ONCE) {
                for port in some {
                    let frame = ethernet(card, 0x0800, &ip(self.own, address, 6, &tcp(self.own, address, *port, 1, SYN)));
                    self.send(&frame)?;
                }
                self.answers(card, address, some, &mut out)?;
            }
        }
        Ok(out)
    }

    fn answers(&mut self, card: Mac, address: Ipv4Addr, asked: &[u16], out: &mut Ports) -> Result<()> {
        let mut left: BTreeSet<u16> = asked.iter().copied().collect();
        let own = self.own;
        while !left.is_empty() {
            let Some((port, flags)) = self.hear(|f| answer(f, card, address, own)) else { break };
            if !left.remove(&port) {
                continue;
            }
            out.silent.remove(&port);
            if flags & (SYN | ACK) == SYN | ACK {
                out.open.insert(port);
                self.send(&ethernet(card, 0x0800, &ip(own, address, 6, &tcp(own, address, port, 2, RST))))?;
            } else {
                ensure!(flags & RST != 0, "port {port} answers what no TCP does: {flags:#x}");
                out.closed.insert(port);
            }
        }
        Ok(())
    }

    /// Whether the guest says that nobody is at this UDP port.
    pub fn udp_is_closed(&mut self, card: Mac, address: Ipv4Addr, port: u16) -> Result<bool> {
        let mut datagram = [FROM.to_be_bytes(), port.to_be_bytes(), 12u16.to_be_bytes(), [0; 2]].concat();
        datagram.extend(b"ping"); // without a checksum, as UDP allows
        self.send(&ethernet(card, 0x0800, &ip(self.own, address, 17, &datagram)))?;
        let unreachable = |f: &[u8]| {
            let icmp = f.get(34..).filter(|_| f[12..14] == [8, 0] && f[23] == 1)?;
            // "Port unreachable", with the head of what was sent.
            (icmp.get(..2)? == [3, 3] && icmp.get(30..32)? == port.to_be_bytes()).then_some(())
        };
        Ok(self.hear(unreachable).is_some())
    }

    /// Asks everybody who speaks IPv6 on this network; what comes from that card.
    pub fn ipv6(&mut self, card: Mac) -> Result<Option<Vec<u8>>> {
        let (own, all) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        let mut echo = vec![128, 0, 0, 0, 0, 1, 0, 1];
        let pseudo = [&own.octets()[..], &all.octets(), &8u32.to_be_bytes(), &[0, 0, 0, 58], &echo].concat();
        echo[2..4].copy_from_slice(&sum(&pseudo).to_be_bytes());
        let packet = [&[0x60, 0, 0, 0, 0, 8, 58, 255][..], &own.octets(), &all.octets(), &echo].concat();
        for _ in 0..TIMES {
            self.send(&ethernet([0x33, 0x33, 0, 0, 0, 1], 0x86dd, &packet))?;
            let found = self.hear(|f| (f.len() > 14 && f[6..12] == card && f[12..14] == [0x86, 0xdd]).then(|| f.to_vec()));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// A TCP answer from there to the port that asks: its port, its flags.
fn answer(frame: &[u8], card: Mac, from: Ipv4Addr, to: Ipv4Addr) -> Option<(u16, u8)> {
    let fits = frame.len() >= 54 && frame[6..12] == card && frame[12..14] == [8, 0] && frame[14] == 0x45 && frame[23] == 6;
    let ours = fits && frame[26..30] == from.octets() && frame[30..34] == to.octets() && frame[36..38] == FROM.to_be_bytes();
    ours.then(|| (u16::from_be_bytes([frame[34], frame[35]]), frame[47]))
}

/// What an ARP question (1) or answer (2) says.
fn said(frame: &[u8], what: u8) -> Option<&[u8]> {
    frame.get(14..42).filter(|said| frame[12..14] == [8, 6] && said[6..8] == [0, what])
}

/// The answer to whoever asks where this end is.
fn here(frame: &[u8], own: Ipv4Addr) -> Option<Vec<u8>> {
    let asked = said(frame, 1).filter(|said| said[24..28] == own.octets())?;
    let by = Ipv4Addr::from(*asked[14..18].first_chunk::<4>()?);
    Some(arp(2, *asked[8..14].first_chunk()?, own, by))
}

fn arp(what: u8, to: Mac, own: Ipv4Addr, other: Ipv4Addr) -> Vec<u8> {
    let content = [&[0, 1, 8, 0, 6, 4, 0, what][..], &OWN, &own.octets(), &to, &other.octets()].concat();
    ethernet(to, 0x0806, &content)
}

fn send(socket: &mut UnixStream, frame: &[u8]) -> std::io::Result<()> {
    // In one piece: both ends of a wire write.
    socket.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat())
}

fn ethernet(to: Mac, kind: u16, content: &[u8]) -> Vec<u8> {
    let mut out = [&to[..], &OWN, &kind.to_be_bytes(), content].concat();
    out.resize(out.len().max(60), 0);
    out
}

fn ip(from: Ipv4Addr, to: Ipv4Addr, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut head = vec![0x45, 0];
    head.extend((20 + content.len() as u16).to_be_bytes());
    head.extend([0, 0, 0x40, 0, 64, kind, 0, 0]);
    head.extend(from.octets());
    head.extend(to.octets());
    let checksum = sum(&head);
    head[10..12].copy_from_slice(&checksum.to_be_bytes());
    [head, content.to_vec()].concat()
}

fn tcp(from: Ipv4Addr, to: Ipv4Addr, port: u16, sequence: u32, flags: u8) -> Vec<u8> {
    let mut out = [FROM.to_be_bytes(), port.to_be_bytes()].concat();
    out.extend(sequence.to_be_bytes());
    out.extend([0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 6, 0, 20], &out].concat();
    let checksum = sum(&pseudo);
    out[16..18].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// The Internet's checksum.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_nothing() {
        let (a, b) = (Ipv4Addr::new(10, 0, 2, 77), Ipv4Addr::new(10, 0, 2, 15));
        let packet = ip(a, b, 6, &tcp(a, b, 443, 1, SYN));
        assert_eq!(sum(&packet[..20]), 0);
        assert_eq!(sum(&[&a.octets()[..], &b.octets(), &[0, 6, 0, 20], &packet[20..]].concat()), 0);
        assert_eq!(sum(&[0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7]), 0xb861);
    }
}
