//! Arithmetic in GF(2^8) with AES's polynomial, without branches or tables on its operands.
//!
//! Promises: the time of every operation is independent of the values. It knows nothing of shares.

/// The product of two elements: eight shifts and masked additions.
pub fn mul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0u8);
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        a = (a << 1) ^ (0x1b & (a >> 7).wrapping_neg());
        b >>= 1;
    }
    product
}

/// The multiplicative inverse, `a^254`; zero for zero.
pub fn inverse(a: u8) -> u8 {
    // 254 = 2 + 4 + ... + 128
    let mut square = mul(a, a);
    let mut out = square;
    for _ in 0..6 {
        square = mul(square, square);
        out = mul(out, square);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_aes_s() {
        // FIPS 197, section 4.2
        assert_eq!(mul(0x57, 0x83), 0xc1);
        assert_eq!(mul(0x57, 0x13), 0xfe);
    }

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        assert_eq!(inverse(0), 0);
        for a in 1..=255 {
            assert_eq!(mul(a, inverse(a)), 1, "{a}");
        }
    }

    #[test]
    fn multiplication_distributes_and_commutes() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                assert_eq!(mul(a, b), mul(b, a));
                assert_eq!(mul(a, b ^ 0x35), mul(a, b) ^ mul(a, 0x35));
            }
        }
    }
}
