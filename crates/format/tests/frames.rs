//! The bytes of stream frames, written out: see docs/formats/stream.md.
#![forbid(unsafe_code)]

use hoidla_format::{
    Hash32, Kind, StreamId,
    frame::{Chain, head, join_epoch_header, message_aad, split, split_epoch_header},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn heads() {
    assert_eq!(hex(&head(Kind::EpochHeader, 1)), "686f69646c61100101000000");
    assert_eq!(hex(&head(Kind::Message, 0x0102)), "686f69646c61110102010000");
    assert_eq!(hex(&head(Kind::StreamRoot, 0)), "686f69646c61120100000000");
    for refused in ["686f69646c61100201000000aa", "686f69646c61130101000000aa", "686f69646c61110102000000aa", "486f69646c61110101000000aa"]
    {
        let bytes: Vec<u8> = (0..refused.len()).step_by(2).map(|i| u8::from_str_radix(&refused[i..i + 2], 16).unwrap()).collect();
        assert!(split(&bytes).is_err(), "{refused}");
    }
}

#[test]
fn associated_data() {
    let aad = message_aad(&"land".parse().unwrap(), StreamId([0xab; 16]), 2, 0x0102_0304);
    assert_eq!(hex(&aad), "686f69646c61110104006c616e64abababababababababababababababab020000000403020100000000");
}

#[test]
fn an_epoch_header_body() {
    let body = join_epoch_header(b"A", b"EF");
    assert_eq!(hex(&body), "0100000041020000004546");
    for cut in 0..body.len() {
        assert!(split_epoch_header(&body[..cut]).is_err(), "cut at {cut}");
    }
    assert!(split_epoch_header(&[&body[..], b"x"].concat()).is_err());
}

#[test]
fn the_chain() {
    let one = Chain::EMPTY.then(&Hash32([1; 32]), 5);
    let two = one.then(&Hash32([2; 32]), 7);
    assert_eq!((one.length, two.length), (5, 12));
    assert_eq!(one.root.to_string(), "f7a6701a7083d465c61867b8a2987ff90654f54cc654435ec876a2b15162aaa0");
    assert_eq!(two.root.to_string(), "669ea39a996778768980b74d5daba4f962330cafca5c40f30b692e347a120e00");
}
