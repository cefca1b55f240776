//! The only place that prints: results to standard output, errors to standard error.
//!
//! Nobody who reads may hold up a run: a stream that was closed is written to no more, quietly.
//! Knows colours and whether a person is watching; not what is said.

use crate::args::ColorChoice;
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::Mutex;

/// Why standard output could not be written, other than because its reader is gone.
static OUTPUT_ERROR: Mutex<Option<String>> = Mutex::new(None);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors and what was asked for.
    Quiet,
    /// The usual.
    Normal,
    /// Everything.
    Verbose,
}

/// How something is written on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// As it is.
    Plain,
    /// Names and titles.
    Bold,
    /// What may be overlooked.
    Dim,
    /// What failed.
    Red,
    /// What is well.
    Green,
    /// What needs a look.
    Yellow,
    /// What is under way.
    Cyan,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Ink::Plain => "",
            Ink::Bold => "\x1b[1m",
            Ink::Dim => "\x1b[2m",
            Ink::Red => "\x1b[1;31m",
            Ink::Green => "\x1b[32m",
            Ink::Yellow => "\x1b[33m",
            Ink::Cyan => "\x1b[36m",
        }
    }

    /// Writes `text` in this ink if `wanted`.
    pub(crate) fn paint(self, text: impl Display, wanted: bool) -> String {
        if !wanted || self == Ink::Plain {
            return text.to_string();
        }
        format!("{}{text}\x1b[0m", self.code())
    }
}

/// What is known of the two streams. Copies are all the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// How much is said.
    pub(crate) verbosity: Verbosity,
    /// Whether standard output is coloured.
    pub(crate) color: bool,
    /// Whether standard error is coloured.
    pub(crate) error_color: bool,
    /// Whether lines may be redrawn: both streams are terminals that can.
    pub(crate) live: bool,
}

impl Terminal {
    /// Looks at the streams and at what the environment says of them.
    pub(crate) fn detect(choice: ColorChoice, verbosity: Verbosity) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        // https://no-color.org: any value but an empty one.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |is_terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !is_dumb && !no_color,
        };
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            verbosity,
            color: colored(out),
            error_color: colored(err),
            live: out && err && !is_dumb,
        }
    }

    /// Whether the usual things are said.
    pub(crate) fn is_talkative(&self) -> bool {
        self.verbosity >= Verbosity::Normal
    }

    /// Whether everything is said.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbosity == Verbosity::Verbose
    }

    /// Paints for standard output.
    pub(crate) fn paint(&self, ink: Ink, text: impl Display) -> String {
        ink.paint(text, self.color)
    }

    /// Paints for standard error.
    pub(crate) fn paint_error(&self, ink: Ink, text: impl Display) -> String {
        ink.paint(text, self.error_color)
    }
}

/// Keeps a terminal from writing `^C` where lines are redrawn, until it is dropped.
///
/// The two characters would begin a new line, and what is redrawn would no longer be where it was.
pub(crate) struct NoKeyEcho(Termios);

impl NoKeyEcho {
    /// Returns nothing where there is no terminal, or it is somebody else's at the moment: a
    /// command in the background would be stopped for touching it.
    pub(crate) fn begin() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok().filter(|_| is_in_foreground())?;
        let mut without = before.clone();
        without.local_modes.remove(LocalModes::ECHOCTL);
        tcsetattr(io::stdin(), OptionalActions::Now, &without).ok()?;
        Some(Self(before))
    }
}

impl Drop for NoKeyEcho {
    fn drop(&mut self) {
        if is_in_foreground() {
            // A terminal that is gone needs no mending.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        }
    }
}

fn is_in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp())
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl Display) {
    write(format!("{text}\n").as_bytes());
}

/// Writes lines to the whole of a terminal, in place of what was there; what does not fit is cut.
pub(crate) fn redraw(lines: &[String]) {
    let rows = tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row));
    let room = rows.saturating_sub(1).max(1);
    // From the top, with long lines cut instead of wrapped; each line clears what stood there.
    let mut frame = String::from("\x1b[H\x1b[?7l");
    for line in lines.iter().take(room) {
        frame.push_str(line);
        frame.push_str("\x1b[K\n");
    }
    frame.push_str("\x1b[J\x1b[?7h");
    write(frame.as_bytes());
}

/// Writes bytes to standard output as they are.
pub(crate) fn write(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
        && let Ok(mut first) = OUTPUT_ERROR.lock()
    {
        first.get_or_insert(error.to_string());
    }
}

/// Writes a line to standard error.
pub(crate) fn error_line(text: impl Display) {
    // There is nowhere left to say that this failed.
    let _ = io::stderr()
        .lock()
        .write_all(format!("{text}\n").as_bytes());
}

/// Whether somebody can be asked: both the questions and the answers are on a terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on standard error and reads a line; `None` if there is nobody left to answer.
pub(crate) fn ask(question: impl Display) -> Option<String> {
    let mut err = io::stderr().lock();
    write!(err, "{question}").and_then(|()| err.flush()).ok()?;
    drop(err);
    let mut line = String::new();
    // Nobody types more than this.
    let read = io::stdin().lock().take(1 << 16).read_line(&mut line);
    if let Ok(1..) = read {
        return Some(line.trim().to_owned());
    }
    // Who presses Ctrl-D is still there; a terminal that has hung up is none any more.
    if read.is_err() || !io::stdin().is_terminal() {
        error_line("\nerror: the terminal has hung up: nobody is left to answer");
    }
    None
}

/// Returns why standard output lost something, if it did.
pub(crate) fn output_error() -> Option<String> {
    OUTPUT_ERROR.lock().ok().and_then(|mut error| error.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_is_put_on_only_where_it_is_wanted() {
        assert_eq!(Ink::Green.paint("ok", false), "ok");
        assert_eq!(Ink::Green.paint("ok", true), "\x1b[32mok\x1b[0m");
        assert_eq!(Ink::Plain.paint("ok", true), "ok");
    }
}
