//! Two libraries that check ECDSA signatures, held to the same answers. For tests.

/// What a fast and a portable library say of a signature; none if it is no signature at all.
pub type Says = Option<(bool, bool)>;

/// Both say yes to a signature of the first key and to its twin (ECDSA has one), and no to another
/// key, another message and signatures with a bit changed.
pub fn holds<K>([key, other]: [&K; 2], message: &[u8], [good, twin]: [&[u8]; 2], both: impl Fn(&K, &[u8], &[u8]) -> Says) {
    assert_eq!(both(key, message, good), Some((true, true)));
    assert_eq!(both(key, message, twin), Some((true, true)), "as ECDSA has it");
    assert_eq!(both(other, message, good), Some((false, false)));
    assert_eq!(both(key, b"another message", good), Some((false, false)));
    for bit in (0..good.len() * 8).step_by(31) {
        let mut changed = good.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(both(key, message, &changed), None | Some((false, false))), "bit {bit}");
    }
}
