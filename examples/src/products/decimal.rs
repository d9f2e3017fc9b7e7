use rust_decimal::Decimal;
use serde_json::Number;
use tasker_messages::code;
use tasker_sdk::StepError;

/// Reads a decimal number without rounding it.
pub(super) fn parse_number(text: &str) -> Option<Decimal> {
    let text = text.trim();
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(text).ok();
    }
    // The parser would also take `1_000`.
    if text.contains('_') {
        return None;
    }
    Decimal::from_str_exact(text).ok()
}

/// The JSON number that reads as exactly this decimal.
///
/// # Errors
/// A permanent one if there is none: JSON numbers carry 15 digits for certain.
pub(super) fn exact_number(value: Decimal) -> Result<Number, StepError> {
    let number = nearest_number(value);
    if parse_number(&number.to_string()) == Some(value) {
        return Ok(number);
    }
    let message = format!("{value} has more digits than a JSON number can carry");
    Err(StepError::permanent(code::NUMBER_OUT_OF_RANGE, message))
}

/// The JSON number closest to this decimal.
pub(super) fn nearest_number(value: Decimal) -> Number {
    // Via text, because the conversion of the decimal itself may be off in the last digit. Every
    // decimal is a finite float.
    let nearest: f64 = value.to_string().parse().unwrap_or_default();
    Number::from_f64(nearest).unwrap_or_else(|| 0.into())
}

pub(super) fn overflow() -> StepError {
    StepError::permanent(code::NUMBER_OUT_OF_RANGE, "a sum is larger than decimals can hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        // (text, as JSON; None if it is no decimal, "" if JSON cannot carry it)
        let table = [
            ("2.99", Some("2.99")),
            (" 2.990 ", Some("2.99")),
            ("20640785.71", Some("20640785.71")),
            ("9999999999999.99", Some("9999999999999.99")),
            ("100", Some("100.0")),
            ("-0.01", Some("-0.01")),
            ("1e3", Some("1000.0")),
            ("123456789012345678.91", Some("")),
            ("abc", None),
            ("1_000", None),
            ("1,5", None),
            ("", None),
            ("NaN", None),
            ("inf", None),
        ];
        for (text, expect) in table {
            let got = parse_number(text).map(|value| {
                exact_number(value).map_or_else(|_| String::new(), |number| number.to_string())
            });
            assert_eq!(got.as_deref(), expect, "{text:?}");
        }
    }

    #[test]
    fn the_nearest_float_is_the_one_that_the_text_reads_as() {
        for n in 1..2_000_u32 {
            let mean = Decimal::from(n) / Decimal::from(7_u32 + n % 89);
            let expect: f64 = mean.to_string().parse().expect("a float");
            assert_eq!(nearest_number(mean).as_f64(), Some(expect), "{mean}");
        }
    }
}
