//! The whole system, driven from outside: a real gateway, a real runner, a real kernel.
//!
//! A test that lacks its environment fails and says what to install. `world` is the stage.

mod bad_input;
mod cli;
mod exec;
mod journal;
mod processes;
mod walls;
mod wire;
#[allow(unreachable_pub)]
mod world;
