//! `named_enum!`, the macro for enums whose variants each have one fixed name. The enums themselves are not here.

/// Defines an enum in which each variant has one fixed name: the text by which it is stored, imported or shown.
///
/// Each variant is written once, with its name. The macro derives `Debug`, `Clone`, `Copy`, `PartialEq` and `Eq`, and
/// generates these items with the visibility of the enum:
///
/// - `ALL`: an array of all variants in the order of their declaration;
/// - `as_str`: the name of a variant, usable in constants;
/// - `FromStr`, if a `FromStr` block follows the enum: the variant with a given name. `compare` is the function that
///   compares two names (`str::eq`, or `str::eq_ignore_ascii_case`). A text that is no name is an error of type
///   [`Malformed`](crate::Malformed) with the message `error`.
///
/// ```text
/// named_enum! {
///     /// State of a door.
///     #[derive(PartialOrd, Ord)]
///     pub enum Door {
///         /// Anyone can walk through.
///         Open = "open",
///         /// Nobody can walk through.
///         Closed = "closed",
///     }
///     FromStr { compare: str::eq, error: "must be open or closed" }
/// }
///
/// assert_eq!(Door::ALL, [Door::Open, Door::Closed]);
/// assert_eq!(Door::Open.as_str(), "open");
/// assert_eq!("closed".parse(), Ok(Door::Closed));
/// ```
#[macro_export]
macro_rules! named_enum {
    (
        $(#[$enum_attribute:meta])*
        $visibility:vis enum $Enum:ident {
            $($(#[$variant_attribute:meta])* $Variant:ident = $name:literal,)+
        }
        $(FromStr { compare: $compare:path, error: $error:literal })?
    ) => {
        $(#[$enum_attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $Enum {
            $($(#[$variant_attribute])* $Variant,)+
        }

        impl $Enum {
            /// All variants, in the order of their declaration.
            $visibility const ALL: [Self; [$($name),+].len()] = [$(Self::$Variant),+];

            /// The name of the variant.
            $visibility const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }

        $(
            impl ::core::str::FromStr for $Enum {
                type Err = $crate::Malformed;

                fn from_str(text: &str) -> Result<Self, $crate::Malformed> {
                    Self::ALL
                        .into_iter()
                        .find(|variant| $compare(variant.as_str(), text))
                        .ok_or($crate::Malformed($error))
                }
            }
        )?
    };
}

#[cfg(test)]
mod tests {
    use crate::Malformed;

    named_enum! {
        #[derive(PartialOrd, Ord)]
        enum Door {
            Open = "open",
            Closed = "closed",
        }
        FromStr { compare: str::eq, error: "must be open or closed" }
    }

    named_enum! {
        enum Key {
            Left = "LEFT",
            Right = "RIGHT",
        }
        FromStr { compare: str::eq_ignore_ascii_case, error: "must be LEFT or RIGHT" }
    }

    #[test]
    fn names_are_read_and_written() {
        assert_eq!(Door::ALL, [Door::Open, Door::Closed]);
        assert!(Door::Open < Door::Closed);
        assert_eq!(Door::ALL.map(Door::as_str), ["open", "closed"]);
        for door in Door::ALL {
            assert_eq!(door.as_str().parse(), Ok(door));
        }
        for text in ["", "OPEN", "open ", "ajar"] {
            assert_eq!(text.parse::<Door>(), Err(Malformed("must be open or closed")));
        }
    }

    #[test]
    fn case_is_ignored_on_request() {
        for (text, key) in [("LEFT", Key::Left), ("left", Key::Left), ("Right", Key::Right)] {
            assert_eq!(text.parse(), Ok(key));
        }
        assert_eq!("UP".parse::<Key>(), Err(Malformed("must be LEFT or RIGHT")));
    }
}
