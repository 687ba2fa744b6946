//! Where the kernel locks no memory for us, the ring works all the same and says what to do.
//! Alone in its program, since the limit is the whole process's.

use std::sync::Arc;

use hoidla_store::{BLOCK, Buffer as _, Disk, Op, Pool as _, Request};
use hoidla_uring::{Buffers, DiskFile, Ring};
use nix::sys::resource::{Resource, setrlimit};

/// Gives up this thread's privilege to lock memory beyond the limit, if it has it.
fn drop_privilege() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // Effective, permitted, inheritable, twice: all empty.
    let (mut header, none) = (Header { version: 0x2008_0522, pid: 0 }, [0u32; 6]);
    // SAFETY: both structures have the layout of version 3 of capset, which reads them only.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    assert_eq!(done, 0, "giving up privileges is always allowed");
}

#[test]
fn without_locked_memory_writing_works_and_the_remedy_is_named() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = Arc::new(DiskFile::create(&folder.path().join("a"), 1 << 20).unwrap());
    let pool = Buffers::new(8 << 20).unwrap();
    drop_privilege();
    setrlimit(Resource::RLIMIT_MEMLOCK, 1 << 20, 1 << 20).unwrap();

    let mut ring = Ring::new(vec![Some(disk.clone())], &pool).unwrap();
    let why = ring.register().expect_err("the kernel must have refused to lock 8 MiB");
    assert!(why.contains("ulimit -l") && why.contains("CAP_IPC_LOCK"), "{why}");

    let mut buffer = pool.take(BLOCK).unwrap();
    buffer.as_mut().fill(9);
    ring.push(Request { id: 1, disk: 0, op: Op::Write { at: 8192, blocks: buffer.freeze(BLOCK) } });
    let mut done = Vec::new();
    ring.wait(&mut done, None).unwrap();
    assert!(matches!(done[..], [(1, Ok(BLOCK))]), "{done:?}");
    let mut back = pool.take(BLOCK).unwrap();
    disk.read(8192, back.as_mut()).unwrap();
    assert!(back.as_ref().iter().all(|x| *x == 9));
}
