//! `tr111 tune`

use serde::Serialize;

use super::{
    Failure, Outcome, Reach,
    output::{self, Table, or_dash, printable},
};
use crate::{
    config::{Error, Origin, Values, key::Effect},
    control::{
        ClientError,
        message::{Knob, Reply, Request},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Key and new value, until the agent stops; without any, all keys are shown with value, default, range and unit
    #[arg(value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

#[derive(Serialize)]
struct Listing {
    knobs: Vec<Knob>,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    if args.settings.is_empty() {
        return show(reach, json);
    }
    let mut settings = Vec::new();
    for setting in &args.settings {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::Usage(format!("\"{}\" is not KEY=VALUE", setting.escape_debug())));
        };
        // A wrong key or value is a usage error here. The agent checks again.
        let known = Values::default().set(key, value, Origin::Tune)?;
        match known.effect {
            Effect::Live => {}
            Effect::Start => return Err(Error::NotLive(known.path()).into()),
            Effect::Obsolete => eprintln!("warning: {} has no effect: {}", known.path(), known.help),
        }
        settings.push((key.to_owned(), value.to_owned()));
    }
    match reach.connect()?.ask(&Request::Tune { settings })? {
        Reply::Done => Ok(()),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

fn show(reach: &Reach, json: bool) -> Outcome {
    let Reply::Knobs { knobs } = reach.connect()?.ask(&Request::Knobs)? else {
        return Err(ClientError::OutOfTurn.into());
    };
    if json {
        return output::write_json(&Listing { knobs });
    }
    let mut table = Table::new(&["KEY", "VALUE", "DEFAULT", "RANGE", "UNIT", "FROM"]);
    for knob in knobs {
        let default = or_dash(knob.default.as_deref().unwrap_or_default());
        let unit = or_dash(knob.unit.as_deref().unwrap_or_default());
        let origin = printable(&knob.origin).into_owned();
        table.push([knob.key, or_dash(&knob.value), default, knob.range, unit, origin]);
    }
    table.print()
}
