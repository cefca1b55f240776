//! Rows as columns, each of differences to the row before, in as few bytes as these need: most columns of
//! kernels hardly change from one to the next, and a row takes some 30 bytes where plain numbers took 170.

/// A column ends early, or a number is longer than any is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Writes the columns of rows, of which all numbers are given row by row.
pub(crate) fn encode(numbers: &[u64], columns: usize, into: &mut Vec<u8>) {
    for column in 0..columns {
        let mut last = 0_u64;
        for number in numbers.iter().skip(column).step_by(columns) {
            let difference = number.wrapping_sub(last).cast_signed();
            last = *number;
            // Small differences of either sign become small numbers.
            put(
                (difference.cast_unsigned() << 1) ^ (difference >> 63).cast_unsigned(),
                into,
            );
        }
    }
}

/// Reads `count` rows back, row by row.
pub(crate) fn decode(bytes: &[u8], columns: usize, count: usize) -> Result<Vec<u64>, Malformed> {
    // Every number takes a byte at least: no count makes this larger than eight times what was read.
    let all = count.checked_mul(columns).filter(|all| *all <= bytes.len());
    let mut numbers = vec![0; all.ok_or(Malformed)?];
    let mut rest = bytes;
    for column in 0..columns {
        let mut last = 0_u64;
        for number in numbers.iter_mut().skip(column).step_by(columns) {
            let zigzag = take(&mut rest)?;
            let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
            last = last.wrapping_add(difference);
            *number = last;
        }
    }
    if rest.is_empty() {
        Ok(numbers)
    } else {
        Err(Malformed)
    }
}

/// Writes a number by seven bits a byte, the lowest first.
pub(crate) fn put(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    into.push(number.to_le_bytes()[0]);
}

/// Reads such a number from the front.
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_hardly_changes_takes_a_byte() {
        let numbers: Vec<u64> = (0..100)
            .flat_map(|row| [1_700_000_000_000 + row * 20, 5])
            .collect();
        let mut bytes = Vec::new();
        encode(&numbers, 2, &mut bytes);
        assert_eq!(bytes.len(), 6 + 99 + 100);
        assert_eq!(decode(&bytes, 2, 100), Ok(numbers));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(decode(&[0, 0], 1, usize::MAX), Err(Malformed));
        assert_eq!(decode(&[0, 0], 1, 1), Err(Malformed));
        assert_eq!(decode(&[0x80, 0], 1, 2), Err(Malformed));
        assert_eq!(decode(&[0xff; 11], 1, 1), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in prop::collection::vec(any::<[u64; 3]>(), 0..50)) {
            let mut bytes = Vec::new();
            encode(rows.as_flattened(), 3, &mut bytes);
            prop_assert_eq!(decode(&bytes, 3, rows.len()), Ok(rows.concat()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_usize..70) {
            let _ = decode(&bytes, 3, count);
        }
    }
}
