//! The site file: what is signed, and what is refused.

use crate::stage::*;

#[test]
fn serials_only_rise() {
    let stage = Stage::signed();
    site::sign(&stage.home, &stage.ours()).expect("the same text again");
    stage.edit("State Gazette", "The State Gazette");
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("line 6") && e.contains("write 2"), "{e}");
    stage.edit("serial = 1", "serial = 9");
    assert_eq!(site::sign(&stage.home, &stage.ours()).unwrap().serial, 9);
    stage.edit("serial = 9", "serial = 8");
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("write 10"));
    stage.edit("serial = 8", "serial = 10");
    stage.edit("site = \"lux\"", "site = \"sgp\"");
    assert!(told(site::sign(&stage.home, &stage.ours())).contains("write \"lux\""));
}

#[test]
fn retention_only_grows() {
    let stage = Stage::signed();
    stage.edit("serial = 1", "serial = 2");
    stage.edit("retention_days = 365", "retention_days = 364");
    let e = told(site::sign(&stage.home, &stage.ours()));
    assert!(e.contains("line ") && e.contains("write 365 or more"), "{e}");
    stage.edit("retention_days = 364", "retention_days = 366");
    site::sign(&stage.home, &stage.ours()).unwrap();
}

#[test]
fn a_word_about_time_skips_no_more_than_passed() {
    let stage = Stage::signed();
    let (home, key) = (&stage.home, stage.authority());
    let ask = |from: u64, days: u32| {
        let request = clock::Request { appliance: name("lux-1"), from, days, reason: "moved to another hall".into() };
        clock::skip(home, &request, &stage.ours())
    };
    assert!(told(ask(0, 1)).contains("not enrolled"));
    stage.deal(&[], Some(1), false).unwrap();
    enrol::enrol(home, &name("lux-1"), &stage.ours()).unwrap();
    assert!(told(ask(0, 1)).contains("at most 0"), "it was enrolled today");
    let enrolled: Enrolment = open(&home.enrolment(&name("lux-1")), &key);
    let then = Moment::from_seconds(Moment::now().seconds() - 100 * 86_400);
    fs::write(home.enrolment(&name("lux-1")), stage.keys().sign(&Enrolment { issued: then, ..enrolled }).unwrap()).unwrap();
    assert!(told(ask(500, 101)).contains("at most 100"));
    let (path, word) = ask(500, 100).unwrap();
    assert_eq!((word.serial, word.from, word.to), (1, 500, 500 + 100 * 86_400));
    assert_eq!(open::<Skip>(&path, &key), word);
    assert!(told(ask(word.to, 1)).contains("at most 0"), "the last word's date counts");
    let request = clock::Request { appliance: name("lux-9"), from: 0, days: 1, reason: "x".into() };
    assert!(told(clock::skip(home, &request, &stage.ours())).contains("lux-9"));
}
