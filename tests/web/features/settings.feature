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

  Scenario: What is set while a chat is being made belongs to it
    Given the page is open with the echo model
    And new chats are held back
    When I say "Before"
    And I write the system prompt "You are a lighthouse."
    And I write the note "It is night." at depth 0
    And new chats are let through
    Then the chat has the system prompt "You are a lighthouse." and the note "It is night." at depth 0
    When I say "Who are you?"
    Then the conversation shows "Who are you?"

  Scenario: Settings before the first word
    Given the page is open with the echo model
    When I set the temperature to 0.9
    And I say "The first word"
    Then the reply was drawn with temperature 0.9

  Scenario: A setting that is typed while a reply is being written
    Given the page is open with a model that counts slowly
    When I say "Count"
    And I type the temperature "0.8", wait for more of the reply, and type "5"
    Then the chat has temperature 0.85

  Scenario: What is changed quickly ends as it was left
    Given the page is open with the echo model
    When I say "Before"
    And I drag the temperature from one end to the other
    And I say "Draw me"
    Then the reply was drawn with the temperature at that end
    And the chat has the temperature at that end

  Scenario: An adapter of the chat's own
    Given the page is open with a small real model and the adapter "odd"
    When I take the preset "Always the likeliest"
    And I say "one two three"
    And I give the adapter "odd" the weight 2
    And I press "Another version"
    Then the newest reply is version 2 of 2
    And its two versions read differently
    And the chat has the adapter "odd" with the weight 2
    When I take the adapter "odd" away
    And I press "Another version"
    Then the newest reply is version 3 of 3
    And its first and third version read alike
