//! The caller of a request, and what the caller may see. How a token is checked is not here.

use crate::Line;

/// A caller whose token is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's subject.
    pub subject: String,
    /// What the caller may see.
    pub scope: Scope,
}

/// A role, with the token claim that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The lines of one customer.
    Owner {
        /// The customer.
        customer: String,
    },
    /// The lines of one reseller's customers.
    Reseller {
        /// The reseller.
        reseller: String,
    },
    /// All lines.
    Admin,
}

impl Caller {
    /// Whether the caller may see what belongs to this customer and reseller.
    pub fn may_see(&self, customer: &str, reseller: Option<&str>) -> bool {
        match &self.scope {
            Scope::Owner { customer: own } => own == customer,
            Scope::Reseller { reseller: own } => reseller == Some(own),
            Scope::Admin => true,
        }
    }

    /// Whether the caller may see the line.
    pub fn may_see_line(&self, line: &Line) -> bool {
        self.may_see(&line.customer, line.reseller.as_deref())
    }

    /// The role, by its name in tokens.
    pub fn role(&self) -> &'static str {
        match self.scope {
            Scope::Owner { .. } => "OWNER",
            Scope::Reseller { .. } => "RESELLER",
            Scope::Admin => "ADMIN",
        }
    }

    /// The role and the first 32 characters of the subject, for the timeline of a swap: `OWNER anna`.
    pub fn label(&self) -> String {
        let subject: String = self.subject.chars().take(32).collect();
        format!("{} {subject}", self.role())
    }

    /// Subject, role and claim in one text. Two callers are the same if and only if this text is the same: the lengths
    /// in it make it unambiguous.
    pub fn identity(&self) -> String {
        let claim = match &self.scope {
            Scope::Owner { customer: claim } | Scope::Reseller { reseller: claim } => claim,
            Scope::Admin => "",
        };
        let (subject, role) = (&self.subject, self.role());
        format!("{}:{subject}{role}{}:{claim}", subject.len(), claim.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::line;

    fn caller(scope: Scope) -> Caller {
        Caller {
            subject: "s".into(),
            scope,
        }
    }

    #[test]
    fn callers_see_the_lines_of_their_customer_or_reseller() {
        let owner = caller(Scope::Owner {
            customer: "C-100".into(),
        });
        let reseller = caller(Scope::Reseller {
            reseller: "R-10".into(),
        });
        let admin = caller(Scope::Admin);
        for (customer, line_reseller, seen) in [
            ("C-100", Some("R-10"), [true, true, true]),
            ("C-200", Some("R-10"), [false, true, true]),
            ("C-300", Some("R-20"), [false, false, true]),
            ("C-100", None, [true, false, true]),
        ] {
            let line = Line {
                customer: customer.to_owned(),
                reseller: line_reseller.map(str::to_owned),
                ..line()
            };
            for (caller, seen) in [&owner, &reseller, &admin].into_iter().zip(seen) {
                let sees = caller.may_see(customer, line_reseller);
                assert_eq!(sees, seen, "{caller:?} {customer} {line_reseller:?}");
                assert_eq!(caller.may_see_line(&line), sees, "{caller:?} {line:?}");
            }
        }
        assert_ne!(owner.identity(), reseller.identity());
        assert_ne!(reseller.identity(), admin.identity());
    }

    #[test]
    fn the_timeline_names_the_role_and_the_start_of_the_subject() {
        let subject = "é".repeat(33);
        for (scope, role) in [
            (
                Scope::Owner {
                    customer: "C-100".into(),
                },
                "OWNER",
            ),
            (
                Scope::Reseller {
                    reseller: "R-10".into(),
                },
                "RESELLER",
            ),
            (Scope::Admin, "ADMIN"),
        ] {
            let mut caller = caller(scope);
            assert_eq!(caller.label(), format!("{role} s"));
            caller.subject.clone_from(&subject);
            assert_eq!(caller.label(), format!("{role} {}", "é".repeat(32)));
        }
    }
}
