//! Least squares with coefficients that are not negative, for a handful of terms.
//!
//! What is made small are relative errors, so that short times count as much as long ones; and
//! values far off, such as those of a step that another process held up, count less. Knows no
//! steps: rows are numbers.

/// Terms of a fit.
pub(super) const N_TERMS: usize = 3;

/// How often weights are set anew by what the last fit left over.
const ROUNDS: usize = 12;
/// Deviations, in standard deviations of what is left over, up to which values count in full
/// (Huber, 1964: 95 % efficiency where there are no outliers).
const HUBER: f64 = 1.345;
/// Standard deviations per median absolute deviation of a normal distribution.
const DEVIATIONS: f64 = 1.4826;
/// Pivots of correlations below this tell of terms that cannot be told apart.
const SINGULAR: f64 = 1e-9;

/// One value and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// The terms that the coefficients are multiplied with.
    pub(super) terms: [f64; N_TERMS],
    /// What came out; above 0.
    pub(super) value: f64,
}

/// The coefficients that are not negative and come nearest to `rows`; `None` without rows that say
/// anything.
pub(super) fn fit(rows: &[Row]) -> Option<[f64; N_TERMS]> {
    let mut weights: Vec<f64> = rows.iter().map(|row| row.value.powi(-2)).collect();
    let mut found = nonnegative(rows, &weights)?;
    for _ in 0..ROUNDS {
        let errors = relative_errors(rows, &found);
        let scale = DEVIATIONS * statistics::median(&errors)?;
        for ((weight, row), error) in weights.iter_mut().zip(rows).zip(&errors) {
            let counts = match *error > HUBER * scale {
                true => HUBER * scale / error,
                false => 1.0,
            };
            *weight = counts * row.value.powi(-2);
        }
        // Where most values fit exactly all others may come to count for nothing.
        found = nonnegative(rows, &weights).unwrap_or(found);
    }
    Some(found)
}

/// |fitted − value| / value of each row.
pub(super) fn relative_errors(rows: &[Row], coefficients: &[f64; N_TERMS]) -> Vec<f64> {
    let error = |row: &Row| (dot(&row.terms, coefficients) - row.value).abs() / row.value;
    rows.iter().map(error).collect()
}

fn dot(a: &[f64; N_TERMS], b: &[f64; N_TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The least weighted squares among coefficients that are not negative: those of one set of terms,
/// which are so few that every set is tried (Lawson and Hanson, 1974, chapter 23, say why the
/// best of these is the answer).
fn nonnegative(rows: &[Row], weights: &[f64]) -> Option<[f64; N_TERMS]> {
    let mut best: Option<(f64, [f64; N_TERMS])> = None;
    for set in 1u32..1 << N_TERMS {
        let terms: Vec<usize> = (0..N_TERMS).filter(|term| set >> term & 1 == 1).collect();
        let Some(found) = least_squares(rows, weights, &terms) else {
            continue;
        };
        let is_allowed = found.iter().all(|coefficient| *coefficient >= 0.0);
        let squares = rows.iter().zip(weights);
        let squares =
            squares.map(|(row, weight)| weight * (dot(&row.terms, &found) - row.value).powi(2));
        let left: f64 = squares.sum();
        if is_allowed && best.is_none_or(|(least, _)| left < least) {
            best = Some((left, found));
        }
    }
    best.map(|(_, found)| found)
}

/// The least weighted squares with these terms alone, by normal equations of columns of length one;
/// `None` where the rows do not tell the terms apart.
fn least_squares(rows: &[Row], weights: &[f64], terms: &[usize]) -> Option<[f64; N_TERMS]> {
    let sum = |of: &dyn Fn(&Row) -> f64| -> f64 {
        rows.iter().zip(weights).map(|(row, w)| w * of(row)).sum()
    };
    let lengths: Vec<f64> = terms
        .iter()
        .map(|t| sum(&|row| row.terms[*t].powi(2)).sqrt())
        .collect();
    if lengths
        .iter()
        .any(|length| length.is_nan() || *length <= 0.0)
    {
        return None;
    }
    // One row of each equation, its right side last.
    let mut equations: Vec<Vec<f64>> = Vec::new();
    for (a, a_length) in terms.iter().zip(&lengths) {
        let mut equation: Vec<f64> = terms
            .iter()
            .zip(&lengths)
            .map(|(b, b_length)| sum(&|row| row.terms[*a] * row.terms[*b]) / (a_length * b_length))
            .collect();
        equation.push(sum(&|row| row.terms[*a] * row.value) / a_length);
        equations.push(equation);
    }
    let scaled = eliminate(equations)?;
    let mut found = [0.0; N_TERMS];
    for ((term, length), value) in terms.iter().zip(&lengths).zip(scaled) {
        found[*term] = value / length;
    }
    Some(found)
}

/// Solves linear equations, each with its right side last; `None` if they have no one solution.
fn eliminate(mut equations: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = equations.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| {
            equations[*a][column]
                .abs()
                .total_cmp(&equations[*b][column].abs())
        })?;
        equations.swap(column, pivot);
        let (above, below) = equations.split_at_mut(column + 1);
        let pivot = &above[column];
        if pivot[column].is_nan() || pivot[column].abs() <= SINGULAR {
            return None;
        }
        for row in below {
            let factor = row[column] / pivot[column];
            row.iter_mut()
                .zip(pivot)
                .for_each(|(to, from)| *to -= factor * from);
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|i| equations[row][i] * solution[i]).sum();
        solution[row] = (equations[row][n] - known) / equations[row][row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(coefficients: [f64; 3], points: &[(f64, f64)]) -> Vec<Row> {
        let row = |(a, b): &(f64, f64)| {
            let terms = [1.0, *a, *b];
            let value = dot(&terms, &coefficients);
            Row { terms, value }
        };
        points.iter().map(row).collect()
    }

    fn grid() -> Vec<(f64, f64)> {
        let lengths = [16.0, 64.0, 256.0, 1024.0, 4096.0];
        let pairs = lengths
            .iter()
            .flat_map(|n| [(*n, n * n / 2.0), (*n, n * (2048.0 + n / 2.0))]);
        pairs.collect()
    }

    fn near(found: Option<[f64; 3]>, wanted: [f64; 3]) {
        let found = found.expect("a fit");
        for (found, wanted) in found.iter().zip(wanted) {
            let off = (found - wanted).abs();
            assert!(off <= 1e-6 * wanted + 1e-9, "{found} for {wanted}");
        }
    }

    #[test]
    fn coefficients_that_made_the_values_are_found_again() {
        for wanted in [[1500.0, 12.0, 3e-3], [0.0, 7.0, 1e-4], [300.0, 0.0, 0.0]] {
            near(fit(&rows(wanted, &grid())), wanted);
        }
    }

    #[test]
    fn values_far_off_hardly_count() {
        let wanted = [1500.0, 12.0, 3e-3];
        let mut rows = rows(wanted, &[grid(), grid(), grid()].concat());
        rows[3].value *= 9.0;
        rows[14].value *= 4.0;
        near(fit(&rows), wanted);
    }

    #[test]
    fn no_coefficient_is_negative_where_the_best_would_be() {
        let falling = [(1.0, 1.0), (2.0, 4.0), (3.0, 9.0), (4.0, 16.0)];
        let rows = rows([10.0, -1.0, 0.0], &falling);
        let found = fit(&rows).expect("a fit");
        assert!(found.iter().all(|c| *c >= 0.0), "{found:?}");
        assert!(found[0] > 6.0 && found[0] < 9.0, "{found:?}");
    }

    #[test]
    fn terms_that_cannot_be_told_apart_are_not_guessed() {
        // One length: constant, tokens and pairs are the same thing.
        let rows = rows([100.0, 10.0, 1.0], &[(8.0, 32.0); 5]);
        let found = fit(&rows).expect("a fit");
        assert_eq!(found.iter().filter(|c| **c > 0.0).count(), 1);
        assert!((dot(&rows[0].terms, &found) - rows[0].value).abs() < 1e-9);
        assert_eq!(fit(&[]), None);
    }
}
