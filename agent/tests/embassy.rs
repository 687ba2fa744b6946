//! Copying in and restoring, through a real door, with all that can come between.

mod common;

use std::{fs, path::Path, time::Duration};

use common::{Embassy, folder, name, noise, same};
use hoidla_agent::{restore::Wish, state::State};
use hoidla_format::{Hash32, Kind, Moment, StreamId, frame, frame::Chain};
use hoidla_snapshot::Only;

fn wish(to: &Path) -> Wish<'_> {
    Wish { to, only: Only::All, dataset: None, generation: None, stream: None, at_least: None, before: None }
}

fn kinds(e: &Embassy) -> Vec<(u32, Kind)> {
    e.store().only().frames.iter().map(|(epoch, f)| (*epoch, frame::split(f).unwrap().0)).collect()
}

#[test]
fn copied_in_and_restored() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 1);
    let done = e.push(&home, &root).unwrap();
    assert_eq!((done.pushed.changed, done.pushed.left_out, done.resumed), (0, 0, 0));
    assert_eq!(done.state.acknowledged, e.store().only().chain());
    let all = kinds(&e);
    assert_eq!((all[0], all[all.len() - 1]), ((1, Kind::EpochHeader), (1, Kind::StreamRoot)));
    let sealed = e.store().only().bytes();
    assert!(!sealed.windows(11).any(|w| w == b"1 words\n1 w"), "no plaintext");

    let granted = e.granted();
    let restored = e.restore(&granted, &e.path("to"), Only::All).unwrap();
    assert_eq!((restored.restored.failed, restored.unsigned, restored.broken), (0, 0, None));
    same(&root, &e.path("to/root"));
    e.restore(&granted, &e.path("one"), Only::Path("root/deep/er".into())).unwrap();
    assert_eq!(fs::read(e.path("one/er/small")).unwrap(), b"small");
    assert_eq!(fs::read_dir(e.path("one")).unwrap().count(), 1, "no ciphertext is left");
}

#[test]
fn the_next_push_sends_what_changed() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 1);
    let first = e.push(&home, &root).unwrap();
    fs::write(root.join("new"), noise(9, 300_000)).unwrap();
    let second = e.push(&home, &root).unwrap();
    assert_eq!(second.state.stream, first.state.stream);
    assert!(second.sealed < 1_500_000, "{} bytes for 300,000 new ones", second.sealed);
    e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
    same(&root, &e.path("to/root"));

    let mut settings = e.settings();
    settings.new_generation = true;
    let third = e.push_with(&home, &root, &settings).unwrap();
    assert_eq!((third.state.generation, e.store().streams.len()), (2, 2));
    assert!(third.sealed > 12_000_000, "a new generation shares nothing");
    e.restore(&e.granted(), &e.path("again"), Only::All).unwrap();
    same(&root, &e.path("again/root"));
}

#[test]
fn a_cut_line_is_taken_up_again() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 2);
    e.store().trouble.cut_after = Some(5);
    e.push(&home, &root).unwrap();
    assert!(e.store().connections >= 3);
    assert!(kinds(&e).iter().all(|(epoch, _)| *epoch == 1), "the same epoch goes on");
    e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
    same(&root, &e.path("to/root"));
}

#[test]
fn a_killed_agent_goes_on_from_its_spool() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 3);
    // What the embassy would not take stays in the spool, as after a kill.
    e.store().trouble.full_after = Some(6);
    let refused = e.push(&home, &root).err().unwrap();
    assert!(format!("{refused:#}").contains("full"), "{refused:#}");
    let before = e.store().only().clone();
    assert_eq!(before.frames.len(), 6);
    let spooled = State::all(&home).unwrap()[0].dir(&home).join("spool");
    assert!(fs::read_dir(&spooled).unwrap().count() > 0);

    e.store().trouble.full_after = None;
    let done = e.push(&home, &root).unwrap();
    assert!(done.resumed > 0);
    assert!(e.store().only().bytes().starts_with(&before.bytes()));
    assert!(done.pushed.fresh < 12_000_000, "{}: what was sent is not sent again", done.pushed.fresh);
    e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
    same(&root, &e.path("to/root"));
}

#[test]
fn a_lost_spool_begins_a_new_epoch_where_the_embassy_stands() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 4);
    // Kept but never acknowledged, then everything but the papers is lost at home.
    e.store().trouble.mute = true;
    let mut settings = e.settings();
    settings.give_up_after = Duration::from_secs(1);
    settings.spool = 4 << 20;
    e.store().trouble.full_after = Some(4);
    assert!(e.push_with(&home, &root, &settings).is_err());
    let dir = State::all(&home).unwrap()[0].dir(&home);
    fs::remove_dir_all(dir.join("spool")).unwrap();
    e.store().trouble = Default::default();
    let done = e.push(&home, &root).unwrap();
    assert_eq!((done.state.generation, e.store().only().epoch()), (1, 2));
    e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
    same(&root, &e.path("to/root"));

    // And if even the record is gone: a new generation.
    fs::remove_dir_all(home.join("streams")).unwrap();
    assert_eq!(e.push(&home, &root).unwrap().state.generation, 2);
}

#[test]
fn an_opening_that_closes_the_epoch_makes_the_next() {
    for at in [0, 1, 5, 12] {
        let e = Embassy::new();
        let (home, root) = (e.home("home", 3600), e.path("root"));
        folder(&root, 5);
        e.store().trouble.close_after = Some(at);
        e.push(&home, &root).unwrap();
        let epochs: Vec<u32> = kinds(&e).iter().filter(|(_, k)| *k == Kind::EpochHeader).map(|(n, _)| *n).collect();
        assert_eq!(epochs, if at == 0 { vec![1] } else { vec![1, 2] }, "closed after {at} frames");
        let restored = e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
        assert_eq!(restored.restored.failed, 0);
        same(&root, &e.path("to/root"));
    }
}

#[test]
fn a_store_that_is_behind_raises_an_alarm() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 6);
    e.push(&home, &root).unwrap();
    e.store().only().frames.pop();
    let refused = e.push(&home, &root).err().unwrap();
    assert!(format!("{refused:#}").contains("behind"), "{refused:#}");
    assert!(format!("{refused:#}").contains("--new-generation"), "{refused:#}");
}

#[test]
fn a_reader_refuses_what_is_not_signed() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 7);
    e.push(&home, &root).unwrap();
    let good = e.store().only().clone();
    let granted = e.granted();
    type Frames = Vec<(u32, Vec<u8>)>;
    let tries = |change: &dyn Fn(&mut Frames)| {
        let mut bad = good.clone();
        change(&mut bad.frames);
        *e.store().only() = bad;
        let to = tempfile::tempdir().unwrap();
        format!("{:#}", e.restore(&granted, &to.path().join("to"), Only::All).err().unwrap())
    };
    let cut = tries(&|frames| _ = frames.pop());
    assert!(cut.contains("signed range ends at 0"), "{cut}");
    let flipped = tries(&|frames| *frames[3].1.last_mut().unwrap() ^= 1);
    assert!(flipped.contains("not those that the agent signed"), "{flipped}");
    let swapped = tries(&|frames| frames.swap(3, 4));
    assert!(swapped.contains("not those that the agent signed"), "{swapped}");
    let dropped = tries(&|frames| _ = frames.remove(3));
    assert!(dropped.contains("not those that the agent signed"), "{dropped}");
    let headless = tries(&|frames| _ = frames.remove(0));
    assert!(headless.contains("before any epoch's header"), "{headless}");
    let forged = tries(&|frames| {
        let at = frames[0].1.len() - 10;
        frames[0].1[at] ^= 1;
    });
    assert!(forged.contains("epoch's header") || forged.contains("re-wrapped"), "{forged}");
}

#[test]
fn a_broken_tail_leaves_the_snapshot_before_it() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 8);
    e.push(&home, &root).unwrap();
    fs::rename(e.path("root"), e.path("kept")).unwrap();
    folder(&root, 9);
    let signed = e.store().only().chain().length;
    e.push(&home, &root).unwrap();
    let last = e.store().only().frames.len() - 3;
    e.store().only().frames[last].1[500] ^= 1;
    let done = e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
    assert!(done.broken.unwrap().contains("not those that the agent signed"));
    assert!(done.snapshot < signed && done.signed >= done.snapshot);
    assert_eq!(fs::read(e.path("to/root/noise")).unwrap(), noise(8, 12_000_000));
}

#[test]
fn a_grant_that_is_not_open_restores_nothing() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 10);
    e.push(&home, &root).unwrap();
    let first = e.granted();
    e.granted(); // another reader's; the first has ended
    let refused = e.restore(&first, &e.path("to"), Only::All).err().unwrap();
    assert!(format!("{refused:#}").contains("approved by its quorum"), "{refused:#}");
    let (another, _) = e.granted();
    let refused = e.restore(&(another, first.1), &e.path("to"), Only::All).err().unwrap();
    assert!(format!("{refused:#}").contains("another reader's key"), "{refused:#}");
}

#[test]
fn a_stream_listed_under_another_generation_is_refused() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 11);
    e.push(&home, &root).unwrap();
    e.store().only().generation = 2;
    let refused = e.restore(&e.granted(), &e.path("to"), Only::All).err().unwrap();
    assert!(format!("{refused:#}").contains("signed this as generation 1, and the embassy lists it as 2"), "{refused:#}");
}

#[test]
fn what_was_acknowledged_at_home_can_be_demanded() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 12);
    let first = e.push(&home, &root).unwrap().state.acknowledged;
    let frames = e.store().only().frames.len();
    fs::write(root.join("new"), "new").unwrap();
    let second = e.push(&home, &root).unwrap().state.acknowledged;
    let granted = e.granted();
    let restore = |to: &str, at_least| e.restore_as(&granted, Wish { at_least: Some(at_least), ..wish(&e.path(to)) });
    let done = restore("newest", second).unwrap();
    assert!(done.restored.taken.0 <= done.restored.taken.1 && done.restored.taken.1 <= done.signed_at);
    restore("more than demanded", first).unwrap();
    let refused = restore("another root", Chain { root: Hash32([7; 32]), ..second }).err().unwrap();
    assert!(format!("{refused:#}").contains("keeps something back"), "{refused:#}");
    let refused = restore("within a frame", Chain { length: second.length - 1, ..second }).err().unwrap();
    assert!(format!("{refused:#}").contains("keeps something back"), "{refused:#}");

    e.store().only().frames.truncate(frames);
    let refused = restore("cut", second).err().unwrap();
    assert!(format!("{refused:#}").contains("keeps something back"), "{refused:#}");
    assert!(!e.path("cut").exists(), "nothing was restored");
    restore("cut, and no more demanded", first).unwrap();
}

#[test]
fn of_two_streams_of_a_generation_a_person_chooses() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 13);
    let stream = e.push(&home, &root).unwrap().state.stream;
    let other = e.store().only().clone();
    e.store().streams.insert(StreamId([1; 16]), other);
    let granted = e.granted();
    for generation in [None, Some(1)] {
        let refused = e.restore_as(&granted, Wish { generation, ..wish(&e.path("to")) }).err().unwrap();
        let refused = format!("{refused:#}");
        assert!(refused.contains("--stream") && refused.contains(&stream.to_string()), "{refused}");
    }
    let done = e.restore_as(&granted, Wish { stream: Some(stream), ..wish(&e.path("to")) }).unwrap();
    assert_eq!(done.stream.stream, stream);
    let refused = e.restore_as(&granted, Wish { stream: Some(StreamId([2; 16])), ..wish(&e.path("none")) }).err().unwrap();
    assert!(format!("{refused:#}").contains("asked for"), "{refused:#}");
}

#[test]
fn what_a_revoked_agent_signed_is_taken_only_by_name() {
    let mut e = Embassy::new();
    let (good, bad, root) = (e.home_of("agent-1", "good", 3600), e.home_of("agent-2", "bad", 3600), e.path("root"));
    folder(&root, 14);
    e.push(&good, &root).unwrap();
    fs::write(root.join("forged"), "forged").unwrap();
    assert_eq!(e.push(&bad, &root).unwrap().state.generation, 2);
    let granted = e.granted();
    assert_eq!(e.restore(&granted, &e.path("before"), Only::All).unwrap().stream.generation, 2);

    e.site.revoked_agents = vec![name("agent-2")];
    let done = e.restore(&granted, &e.path("default"), Only::All).unwrap();
    assert_eq!(done.stream.generation, 1, "the revoked agent's is not chosen");
    assert!(!e.path("default/root/forged").exists());
    assert!(done.warnings.iter().any(|w| w.contains("generation 2 was passed over") && w.contains("agent-2")), "{:?}", done.warnings);
    let named = e.restore_as(&granted, Wish { generation: Some(2), ..wish(&e.path("named")) }).unwrap();
    assert!(e.path("named/root/forged").exists());
    assert!(named.warnings.iter().any(|w| w.contains("agent-2")), "{:?}", named.warnings);

    // Whether the site file is the newest is told too.
    assert!(e.restore(&granted, &e.path("old site"), Only::All).unwrap().warnings.len() == 1);
    e.store().trouble.newer_site = Some(9);
    let done = e.restore(&granted, &e.path("newer site"), Only::All).unwrap();
    assert!(done.warnings.iter().any(|w| w.contains("has the site file 9, you gave 1")), "{:?}", done.warnings);

    e.site.revoked_agents.push(name("agent-1"));
    let refused = format!("{:#}", e.restore(&granted, &e.path("none"), Only::All).err().unwrap());
    assert!(refused.contains("agent-1") && refused.contains("agent-2") && refused.contains("--generation"), "{refused}");
}

#[test]
fn an_old_epoch_that_does_not_open_is_passed_over() {
    for damaged in [false, true] {
        let e = Embassy::new();
        let (home, root) = (e.home("home", 3600), e.path("root"));
        folder(&root, 15);
        e.push(&home, &root).unwrap();
        fs::write(root.join("new"), noise(16, 3_000_000)).unwrap();
        e.push(&home, &root).unwrap();
        let trouble = |e: &Embassy, epoch| {
            let at = &mut e.store().trouble;
            *(if damaged { &mut at.bad_key_of } else { &mut at.wrong_key_of }) = Some(epoch);
        };
        trouble(&e, 1);
        let done = e.restore(&e.granted(), &e.path("to"), Only::All).unwrap();
        assert!(done.warnings.len() == 1 && done.warnings[0].contains("epoch 1 was passed over"), "{:?}", done.warnings);
        assert!(done.restored.failed > 0, "what lay in it is named");
        assert_eq!(fs::read(e.path("to/root/new")).unwrap(), noise(16, 3_000_000));
        trouble(&e, 2);
        let refused = format!("{:#}", e.restore(&e.granted(), &e.path("none"), Only::All).err().unwrap());
        assert!(refused.contains("epoch 2 is needed, and it doesn't open"), "{refused}");
    }
}

#[test]
fn a_push_after_the_opening_does_not_stop_a_restore() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("kept"), noise(17, 300_000)).unwrap();
    let first = e.push(&home, &root).unwrap().state.acknowledged;
    let granted = e.granted();
    fs::write(root.join("later"), "copied in after the opening").unwrap();
    let second = e.push(&home, &root).unwrap().state.acknowledged;
    e.store().trouble.keys_before = Some(2);

    let done = e.restore_as(&granted, Wish { at_least: Some(first), ..wish(&e.path("to")) }).unwrap();
    assert!(done.warnings.len() == 1 && done.warnings[0].contains("stay sealed (1)"), "{:?}", done.warnings);
    assert_eq!(fs::read(e.path("to/root/kept")).unwrap(), noise(17, 300_000));
    assert!(!e.path("to/root/later").exists());

    let refused = e.restore_as(&granted, Wish { at_least: Some(second), ..wish(&e.path("none")) }).err().unwrap();
    assert!(format!("{refused:#}").contains("copied in after this grant's opening"), "{refused:#}");
    e.store().trouble.keys_before = Some(1);
    let refused = e.restore(&granted, &e.path("nothing"), Only::All).err().unwrap();
    assert!(format!("{refused:#}").contains("the grant doesn't cover it"), "{refused:#}");
}

#[test]
fn after_the_last_epoch_comes_none() {
    // The next push connects to send what is left, then to send what is new.
    for more in [1, 2] {
        let e = Embassy::new();
        let (home, root) = (e.home("home", 3600), e.path("root"));
        folder(&root, 17);
        e.push(&home, &root).unwrap();
        let from = e.store().connections + more;
        e.store().trouble.last_epoch_from = Some(from);
        let refused = format!("{:#}", e.push(&home, &root).err().unwrap());
        assert!(refused.contains("all its epochs"), "{refused}");
    }
}

#[test]
fn an_older_snapshot_of_a_generation_can_be_chosen() {
    let e = Embassy::new();
    let (home, root) = (e.home("home", 3600), e.path("root"));
    folder(&root, 18);
    e.push(&home, &root).unwrap();
    let between = Moment::now();
    // The agent's clock counts seconds.
    std::thread::sleep(Duration::from_millis(1100));
    fs::write(root.join("later"), "written after the mistake").unwrap();
    e.push(&home, &root).unwrap();
    let granted = e.granted();
    let done = e.restore_as(&granted, Wish { before: Some(between), ..wish(&e.path("before")) }).unwrap();
    assert!(done.warnings.is_empty() && done.signed_at <= between && done.snapshot < done.signed);
    assert!(e.path("before/root/noise").exists() && !e.path("before/root/later").exists());
    e.restore(&granted, &e.path("newest"), Only::All).unwrap();
    assert!(e.path("newest/root/later").exists());
    let long_ago = Some(Moment::from_seconds(1_000_000_000));
    let refused = e.restore_as(&granted, Wish { before: long_ago, ..wish(&e.path("none")) }).err().unwrap();
    assert!(format!("{refused:#}").contains("the earliest was signed"), "{refused:#}");
    assert!(!e.path("none").exists(), "no empty folder is left");
}
