Feature: Settings
  Every chat has its own; what is not set is as the server has it.

  Scenario: A preset, and one of my own
    Given the page is open with the echo model
    When I say "Before"
    And I take the preset "Precise"
    And I say "Draw me"
    Then the reply was drawn with temperature 0.2
    When I set the temperature to 0.45
    And I save the settings as the preset "Mine"
    Then the preset is "Mine"
    When I reset all settings
    And I say "Draw me again"
    Then the reply was drawn with temperature 0.3

  Scenario: A system prompt and a note of the author's
    Given the page is open with the echo model
    When I say "Before"
    And I write the system prompt "You are a lighthouse."
    And I write the note "It is night." at depth 0
    Then the chat has the system prompt "You are a lighthouse." and the note "It is night." at depth 0
    When I say "Who are you?"
    And I reload the page
    Then the chat has the system prompt "You are a lighthouse." and the note "It is night." at depth 0

  Scenario: Settings before the first word
    Given the page is open with the echo model
    When I set the temperature to 0.9
    And I say "The first word"
    Then the reply was drawn with temperature 0.9
