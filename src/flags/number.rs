//! How a number is written.

/// A text is no number of the range.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("write a number from {0} to {1}")]
pub(super) struct NumberError(u64, u64);

/// A whole number from `MIN` to `MAX`, in digits.
pub(super) fn number<const MIN: u64, const MAX: u64, T: TryFrom<u64>>(text: &str) -> Result<T, NumberError> {
    // `u64::from_str` would take `+5`.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && (MIN..=MAX).contains(n));
    number.and_then(|n| T::try_from(n).ok()).ok_or(NumberError(MIN, MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_within_its_range() {
        assert_eq!(number::<1, 300, u32>("1"), Ok(1));
        assert_eq!(number::<1, 300, u32>("300"), Ok(300));
        for text in ["0", "301", "", "+5", "-5", "1e1", "0x1", "five", "99999999999999999999"] {
            let message = number::<1, 300, u32>(text).expect_err(text).to_string();
            assert_eq!(message, "write a number from 1 to 300");
        }
        assert!(number::<0, 256, u8>("256").is_err());
    }
}
