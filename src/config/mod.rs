//! Finds, reads and composes the rooms' settings; owns none of its own.
//!
//! Everything works with no file at all. `places` says where things live, `file` is the TOML a person
//! writes, `compose` makes of both what the rooms take, `profiles` and `doors` read their parts of it.

mod compose;
mod doors;
mod file;
mod layer;
mod places;
mod profiles;
mod units;

pub(crate) use compose::{Flags, Settings, compose};
pub(crate) use doors::TlsSource;
pub(crate) use file::{ConfigFault, DockerFile, File, read, schema};
pub(crate) use layer::Layer;
pub(crate) use places::{Overrides, Places};
pub(crate) use profiles::is_image;
pub(crate) use units::{days, duration, rough};
