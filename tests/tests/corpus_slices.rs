//! Every frame of the corpus through the parser over slices.

use anyhow::{Context, Result};
use tr111_common::counter::Hook;
use tr111_tests::corpus::{self, SliceHooks};

/// Classes of the whole corpus, by `common`'s parser alone: OPT-2, OPT-3, OPT-8, DM-5, DM-6, DM-7, GW-2, GW-3.
#[test]
fn the_parser_gives_every_frame_its_class() -> Result<()> {
    let frames = corpus::load()?;
    let mut wrong = Vec::new();
    for frame in &frames {
        let mut hooks = SliceHooks::default();
        let mut class = None;
        for step in corpus::sequence(&frames, frame, 0)? {
            let bytes = step.bytes().with_context(|| step.name.clone())?;
            class = Some(hooks.run(step.hook()?, &bytes, step.metadata_tag, &frame.config()?));
        }
        let expected = frame.class().with_context(|| frame.name.clone())?;
        if class != Some(expected) {
            wrong.push(format!("{}: {class:?} instead of {expected:?}", frame.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} frames:\n{}", wrong.len(), frames.len(), wrong.join("\n"));
    Ok(())
}

/// What the agent reads from the requests of the corpus: OPT-8, DM-5, DM-6, DM-7, SEC-9.
#[test]
fn the_agent_reads_the_identity_of_every_request() -> Result<()> {
    let frames = corpus::load()?;
    let mut wrong = Vec::new();
    let mut read = 0;
    for frame in frames.iter().filter(|frame| frame.hook().is_ok_and(|hook| hook == Hook::LanIngress)) {
        let Some(expected) = &frame.identity else { continue };
        let bytes = frame.bytes().with_context(|| frame.name.clone())?;
        let identity = corpus::identity_read_by_agent(&bytes, frame.metadata_tag, &frame.config()?)
            .unwrap_or_else(|error| format!("{error:#}"));
        read += 1;
        if identity != *expected {
            wrong.push(format!("{}: {identity:?} instead of {expected:?}", frame.name));
        }
    }
    assert!(wrong.is_empty() && read > 50, "{} of {read} frames:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
