//! Who loads: ways of our own, and programs of others. Rounds and results treat both alike.

use super::foreign::Foreign;
use checkpoints::Format;
use checkpoints::loader::Way;

/// One that loads.
pub(super) enum Arm {
    /// A reader of ours.
    Native(Way),
    /// A program of others, which runs already.
    Foreign(Box<dyn Foreign>),
}

impl Arm {
    /// Its name in results.
    pub(super) fn name(&self) -> &str {
        match self {
            Arm::Native(way) => way.word(),
            Arm::Foreign(foreign) => foreign.name(),
        }
    }

    /// Whether it reads checkpoints of this format.
    pub(super) fn reads(&self, format: Format) -> bool {
        match self {
            Arm::Native(_) => true,
            Arm::Foreign(foreign) => foreign.reads(format),
        }
    }

    /// The reader, of one of ours.
    pub(super) fn way(&self) -> Option<Way> {
        match self {
            Arm::Native(way) => Some(*way),
            Arm::Foreign(_) => None,
        }
    }

    /// Whether a plan that says `word` means it: its name, or what comes before its version.
    fn is_called(&self, word: &str) -> bool {
        let name = self.name();
        let rest = name.strip_prefix(word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

/// Which arm a plan means by a word.
///
/// # Errors
/// If none is called so, or several are: a sentence for the plan's reader.
pub(super) fn called(arms: &[Arm], word: &str) -> Result<usize, String> {
    let exact = arms.iter().position(|arm| arm.name() == word);
    if let Some(at) = exact {
        return Ok(at);
    }
    let named = arms
        .iter()
        .enumerate()
        .filter(|(_, arm)| arm.is_called(word));
    match named.map(|(at, _)| at).collect::<Vec<_>>().as_slice() {
        [one] => Ok(*one),
        found => {
            let names: Vec<String> = arms.iter().map(|arm| format!("`{}`", arm.name())).collect();
            let what = match found {
                [] => "none",
                _ => "several",
            };
            Err(format!(
                "`{word}` is the name of {what} of those that load: {}",
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Scripted;
    use super::*;

    #[test]
    fn a_plan_names_an_arm_in_full_or_without_its_version() {
        let foreign = |name: &str| Arm::Foreign(Box::new(Scripted::new(name)));
        let mut arms = vec![Arm::Native(Way::MmapCopy), foreign("safetensors 0.8.0")];
        assert_eq!(called(&arms, "mmap_copy"), Ok(0));
        assert_eq!(called(&arms, "safetensors"), Ok(1));
        assert_eq!(called(&arms, "safetensors 0.8.0"), Ok(1));
        assert!(called(&arms, "mmap").is_err() && called(&arms, "safetensors 0.9.0").is_err());
        arms.push(foreign("safetensors 0.9.0rc1"));
        let problem = called(&arms, "safetensors").expect_err("two of them");
        assert!(
            problem.contains("several") && problem.contains("`safetensors 0.9.0rc1`"),
            "{problem}"
        );
    }
}
