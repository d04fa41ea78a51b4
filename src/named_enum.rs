//! Enumerations whose variants have one name each, the same in Rust, TOML, JSON and on the command line.
#![forbid(unsafe_code)]

/// Defines an enumeration with its names: `ALL`, `name`, `Display`, `FromStr` and serde all use the same table.
macro_rules! named_enum {
    (
        $(#[$attribute:meta])*
        $type:ident, $what:literal {
            $( $(#[$variant_attribute:meta])* $variant:ident = $name:literal, )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $type {
            $( $(#[$variant_attribute])* #[serde(rename = $name)] $variant, )+
        }

        impl $type {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [$type] = &[$( $type::$variant, )+];

            /// The name in configuration files, model files and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $( $type::$variant => $name, )+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(name: &str) -> $crate::error::Result<Self> {
                $type::ALL.iter().copied().find(|value| value.name() == name).ok_or_else(|| {
                    let names: Vec<&str> = $type::ALL.iter().map(|value| value.name()).collect();
                    $crate::error::Error::invalid($what, format!("one of {}", names.join(", ")), format!("`{name}`"))
                })
            }
        }
    };
}

pub(crate) use named_enum;
