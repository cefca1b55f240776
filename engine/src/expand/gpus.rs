//! GPUs of services whose options say how many they use, so that a plan need not say it again.

use crate::options::Parser;
use crate::plan::NodeDecl;
use crate::policy::{Demand, Pool, Supply};
use crate::value::Kind;

/// The pool of the machine's GPUs.
const GPUS: &str = "gpus";

/// Lets a service take the GPUs that its options say it uses, unless the plan's `resources` say how many
/// it takes: none at all is a plan that knows of another device.
pub(super) fn take(
    decl: &NodeDecl,
    used: u32,
    demand: &mut Demand,
    supply: &Supply,
    parser: &mut Parser<'_>,
) {
    let shown = decl.shown();
    let said = match decl.settings.get("resources").map(|value| &value.kind) {
        Some(Kind::Table(resources)) => resources.get(GPUS),
        _ => None,
    };
    let there = supply.get(GPUS).map_or(0, Pool::size);
    match (said, demand.amounts.get(GPUS).copied()) {
        (Some(value), Some(taken)) if taken < used => {
            let message = format!("{shown} uses {used} GPUs and takes {taken}");
            let help = format!("take {used}, or none if it uses another device: `gpus = 0`");
            parser.wrong::<()>(&value.place, message, "too few", &help);
        }
        (Some(_), _) => {}
        (None, _) if used > there => {
            let message = format!("{shown} uses {used} GPUs, and the machine has {there}");
            let help = format!(
                "run it where there are so many, or use fewer; a service that uses another device says `resources = {{ gpus = 0 }}`, and `--set +resources.gpus={used}` checks a plan for another machine"
            );
            parser.wrong::<()>(&decl.with_place, message, "its options say so", &help);
        }
        (None, _) => {
            demand.amounts.insert(GPUS.to_owned(), used);
        }
    }
}
