//! Student's t distribution; knows nothing of samples.
//!
//! The distribution function is written through the regularised incomplete beta function
//! (Abramowitz and Stegun 26.7.1), evaluated as its continued fraction (26.5.8) by the
//! modified Lentz method. The quantile inverts it by bisection: slow and certain, and called
//! a few times per report.

/// `P(T <= t)` for `df` degrees of freedom (`df > 0`).
#[must_use]
pub fn student_cdf(t: f64, df: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(df / (df + t * t), df / 2.0, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The `t` with `P(T <= t) = p`; infinite at `p` of 0 and 1.
///
/// # Panics
///
/// If `p` lies outside 0..=1 or `df` is not positive.
#[must_use]
pub fn student_quantile(p: f64, df: f64) -> f64 {
    assert!(
        (0.0..=1.0).contains(&p) && df > 0.0,
        "no such t: p = {p}, df = {df}"
    );
    if p < 0.5 {
        return -student_quantile(1.0 - p, df);
    }
    if p == 1.0 {
        return f64::INFINITY;
    }
    let mut high = 1.0;
    while student_cdf(high, df) < p && high < 1e300 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // 200 halvings end below the spacing of doubles for any start that the loop above leaves.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if student_cdf(middle, df) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function `I_x(a, b)`.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    // The fraction converges fast on one side of the mean only; symmetry gives the other.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(1.0 - x, b, a) / b
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            fraction *= d * c;
        }
        if (fraction - before).abs() <= 1e-15 * fraction.abs() {
            break;
        }
    }
    fraction
}

/// `ln Γ(x)` for `x > 0`: shifts `x` up until the Stirling series is exact to double precision.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_printed_tables() {
        for (df, t) in [
            (1.0, 12.7062),
            (2.0, 4.3027),
            (4.0, 2.7764),
            (9.0, 2.2622),
            (29.0, 2.0452),
        ] {
            assert!((student_quantile(0.975, df) - t).abs() < 5e-5, "df {df}");
        }
        assert!((student_quantile(0.95, 5.0) - 2.0150).abs() < 5e-5);
    }

    #[test]
    fn one_degree_of_freedom_is_cauchy() {
        for t in [-30.0_f64, -1.0, 0.0, 0.3, 7.0] {
            let cauchy = 0.5 + t.atan() / std::f64::consts::PI;
            assert!((student_cdf(t, 1.0) - cauchy).abs() < 1e-12, "t {t}");
        }
    }

    #[test]
    fn quantile_inverts_the_distribution() {
        for df in [1.0, 3.0, 17.0, 400.0] {
            for p in [0.001, 0.1, 0.5, 0.8, 0.999] {
                assert!((student_cdf(student_quantile(p, df), df) - p).abs() < 1e-10);
            }
        }
        assert_eq!(student_quantile(1.0, 3.0), f64::INFINITY);
    }
}
