Feature: Ratings
  A reply can be rated good or bad; training data is chosen by it.

  Scenario: A reply is rated, and the rating taken back
    Given the page is open with the echo model
    When I say "Tell me about ships"
    Then the newest reply is not rated
    When I press "Good reply"
    Then the newest reply is rated "Good reply"
    When I reload the page
    Then the newest reply is rated "Good reply"
    When I press "Bad reply"
    Then the newest reply is rated "Bad reply"
    And the log rates it bad
    When I press "Bad reply"
    Then the newest reply is not rated

  Scenario: Each version has its own rating
    Given the page is open with a model that says "Heads it is" and "Tails it is" in turn
    When I say "Toss a coin"
    Then the conversation reads "Toss a coin" and then "Heads it is"
    When I press "Bad reply"
    And I press "Another version"
    Then the conversation reads "Toss a coin" and then "Tails it is"
    And the newest reply is not rated
    When I press "Good reply"
    Then the newest reply is rated "Good reply"
    When I press "Previous version"
    Then the newest reply is rated "Bad reply"

  Scenario: A rating that is given in one tab is seen in the other
    Given the page is open with the echo model
    When I say "Seen from both sides"
    And I open the same chat in a second tab
    Then the newest reply is not rated
    When I press "Good reply"
    And I go back to the first tab
    Then the newest reply is rated "Good reply"

  Scenario: The greeting and my own words are not rated
    Given the page is open with the echo model
    When I say "Nothing to rate here"
    Then only the newest reply can be rated

  Scenario: In German, from the keyboard
    Given I speak de-DE
    And the page is open with the echo model
    When I write "Hallo" in German and send it
    And I press the key Enter on "Gute Antwort"
    Then the newest reply is rated "Gute Antwort"

  @looks
  Scenario Outline: A rated reply, <scheme>
    Given I like my screens <scheme>
    And the page is open with the echo model
    When I say "Can you read this?"
    And I press "Good reply"
    Then the newest reply is rated "Good reply"
    And everything that is written can be read against what is behind it
    And a picture is taken as "rating-<scheme>"

    Examples:
      | scheme |
      | light  |
      | dark   |
