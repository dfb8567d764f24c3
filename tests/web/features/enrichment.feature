Feature: A question in other words
  The model makes a question that can be understood alone; its writer takes it, edits it, or sends their own.

  Scenario: The rewritten question is taken
    Given the page is open with a server that rewrites questions
    When I say "What is the capital of Spain?"
    And I ask "And of Italy?"
    Then my question "And of Italy?" stands beside "What is the capital of Italy?"
    When I press "Send the rewritten one"
    Then the conversation reads "What is the capital of Italy?" and then "What is the capital of Italy?"
    And my message is marked as "rewritten" from "And of Italy?"

  Scenario: The rewritten question is edited
    Given the page is open with a server that rewrites questions
    When I say "What is the capital of Spain?"
    And I ask "And of Italy?"
    And I edit the rewritten question to "What was the capital of Italy in 1865?"
    And I press "Send the rewritten one"
    Then the conversation reads "Italy in 1865?" and then "Italy in 1865?"
    And my message is marked as "rewritten, then edited" from "And of Italy?"

  Scenario: One's own question is sent
    Given the page is open with a server that rewrites questions
    When I say "What is the capital of Spain?"
    And I ask "And of Italy?"
    Then my question "And of Italy?" stands beside "What is the capital of Italy?"
    When I press "Send mine"
    Then the conversation reads "And of Italy?" and then "And of Italy?"

  Scenario: The question is taken back
    Given the page is open with a server that rewrites questions
    When I say "What is the capital of Spain?"
    And I ask "And of Italy?"
    Then my question "And of Italy?" stands beside "What is the capital of Italy?"
    When I think better of it with Escape
    Then the message box still holds "And of Italy?"
    And there are 3 messages

  Scenario: Everybody can compare, on a phone of 320 pixels in the dark
    Given a phone of 320 pixels
    And I like my screens dark
    And the page is open with a server that rewrites questions
    When I say "What is the capital of Spain?"
    And I ask "And of Italy?"
    Then my question "And of Italy?" stands beside "What is the capital of Italy?"
    And nothing in the way of anybody is found
    And a picture is taken as "enrichment-phone-dark"
