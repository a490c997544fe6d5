//! The whole system, driven from outside: a real gateway, a real runner, a real kernel.
//!
//! A test that lacks its environment fails and says what to install. `world` is the stage.

#![allow(clippy::disallowed_methods, reason = "the bans are for the program; tests start whatever they need")]

mod allowed;
mod bad_input;
mod benchmark;
mod cli;
mod contained_list;
mod contained_places;
#[allow(unreachable_pub)]
mod delivery;
#[allow(unreachable_pub)]
mod device;
mod docker;
mod doors;
mod egress;
#[allow(unreachable_pub)]
mod engine;
mod exec;
mod files;
mod hostile_engine;
mod image;
mod journal;
mod kept;
mod landlocked;
mod limits;
mod listed;
mod loader;
mod lockdown;
#[allow(unreachable_pub)]
mod neighbours;
mod own_engine;
mod packaging;
mod pairing;
mod podman;
mod processes;
mod proof;
mod reload;
mod remote;
mod secrets;
mod service;
mod shared_engine;
mod signed;
mod store;
mod terminal;
mod usage;
mod walls;
mod wire;
#[allow(unreachable_pub)]
mod world;
