//! io_uring, aligned and registered memory: the store's disks on Linux.
