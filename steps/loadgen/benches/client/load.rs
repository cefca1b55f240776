//! One load, and what a client made of it.

/// What is asked of the server, and how it answers.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Users of a closed loop.
    pub(crate) streams: u64,
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) ttft_us: u64,
    pub(crate) tpot_us: u64,
    /// Events that one write carries.
    pub(crate) batch: u64,
    /// Arrivals per second of an open loop; 0 is a closed one.
    pub(crate) rate: u64,
}

impl Load {
    /// As arguments of a process, behind the server's port.
    pub(crate) fn arguments(&self, port: u16) -> Vec<String> {
        let numbers = [
            port.into(),
            self.streams,
            self.requests,
            self.tokens,
            self.ttft_us,
            self.tpot_us,
            self.batch,
            self.rate,
        ];
        numbers.iter().map(u64::to_string).collect()
    }

    /// The port and the load in arguments.
    pub(crate) fn read(arguments: &[String]) -> (u16, Self) {
        let numbers: Vec<u64> = arguments
            .iter()
            .map(|a| a.parse().expect("a number"))
            .collect();
        let [
            port,
            streams,
            requests,
            tokens,
            ttft_us,
            tpot_us,
            batch,
            rate,
        ] = numbers[..]
        else {
            panic!("eight numbers")
        };
        let load = Self {
            streams,
            requests,
            tokens,
            ttft_us,
            tpot_us,
            batch,
            rate,
        };
        (u16::try_from(port).expect("a port"), load)
    }
}

/// What a client needed and how near the truth it was; NaN where that is not known.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Named numbers in the order in which they are shown.
    pub(crate) numbers: Vec<(&'static str, f64)>,
}

impl Outcome {
    /// The medians of several outcomes, on one line.
    pub(crate) fn medians(all: &[Self]) -> String {
        let Some(first) = all.first() else {
            return String::new();
        };
        let median = |i: usize| {
            let mut values: Vec<f64> = all.iter().map(|o| o.numbers[i].1).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let number = |(i, (name, _)): (usize, &(&str, f64))| {
            let value = median(i);
            if value.is_nan() {
                return String::new();
            }
            let digits = if value.abs() >= 100.0 { 0 } else { 3 };
            format!("{name} {value:.digits$}  ")
        };
        first.numbers.iter().enumerate().map(number).collect()
    }
}
